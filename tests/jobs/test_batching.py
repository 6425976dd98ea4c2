"""Continuous batching: every answer is the one it would have been alone, whoever else is being answered."""

from __future__ import annotations

import threading

import pytest

from studio import settings
from studio.chat.writing import Sampling
from studio.errors import StudioError

ASKED = ["What is the opposite of hot?", "Where does Anna live?", "Tell me a story.", "Count from 2 to 6.", "Who are you?",
         "Tell me a story about a red apple, a small dog and a boat. " * 8, "What is 3 plus 4?", "Name a fruit."]


@pytest.fixture(scope="module")
def host():
    from studio.chat.host import Host

    return Host(str(settings.STARTER))


@pytest.fixture(scope="module")
def prompts(host) -> list[list[int]]:
    return [host.encode([{"role": "user", "content": text}])[0] for text in ASKED]


def answers(host, jobs: list[tuple[list[int], Sampling]], together: bool = True) -> list:
    """Result and text of each, asked at once or one after the other."""
    made: list = [None] * len(jobs)

    def run(n: int) -> None:
        text: list[str] = []
        try:
            made[n] = host.generate(*jobs[n], text.append, threading.Event()), "".join(text)
        except Exception as err:
            made[n] = err, ""

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
        if not together:
            thread.join(60)
    [thread.join(60) for thread in threads]
    return made


def reference(host, ids: list[int], **settings) -> list[int]:
    """What the library's own generate makes of a prompt."""
    import torch

    inputs = torch.tensor([ids])
    if (seed := settings.pop("seed", None)) is not None:
        torch.manual_seed(seed)
    out = host.model.generate(input_ids=inputs, attention_mask=torch.ones_like(inputs), eos_token_id=2, pad_token_id=0, **settings)
    return out[0, len(ids):].tolist()


def test_greedy_answers_in_company_are_those_of_generate(host, prompts):
    assert len({len(ids) for ids in prompts}) > 4, "prompts of one length would prove nothing about padding"
    expected = [reference(host, ids, do_sample=False, max_new_tokens=50) for ids in prompts]
    for together in (False, True):
        made = answers(host, [(ids, Sampling(temperature=0, max_tokens=50)) for ids in prompts], together)
        for (result, text), theirs in zip(made, expected, strict=True):
            assert text == host.tokenizer.decode(theirs, skip_special_tokens=True)
            assert result.completion_tokens == len(theirs) and result.finish == ("stop" if theirs[-1] == 2 else "length")
    assert host._batcher._together is True


def test_each_answer_keeps_its_own_settings_and_random_numbers(host, prompts):
    """Seven different settings at once, each as the library's generate with that seed alone."""
    ways = [{"temperature": 1.0, "seed": 1}, {"temperature": 1.0, "seed": 2}, {"temperature": 1.5, "top_k": 5, "seed": 3},
            {"temperature": 0.9, "top_p": 0.8, "seed": 4}, {"temperature": 2.0, "min_p": 0.1, "seed": 5},
            {"temperature": 1.0, "repetition_penalty": 1.4, "seed": 6}, {"temperature": 1.0, "seed": 1}]
    jobs = [(ids, Sampling(max_tokens=24 + n, **way)) for n, (ids, way) in enumerate(zip(prompts, ways, strict=False))]
    made = answers(host, jobs)
    for n, (ids, way) in enumerate(zip(prompts, ways, strict=False)):
        theirs = reference(host, ids, do_sample=True, max_new_tokens=24 + n, **({"top_k": 0, "top_p": 1.0} | way))
        assert made[n][1] == host.tokenizer.decode(theirs, skip_special_tokens=True), way


def test_answers_join_and_leave_while_others_are_written(host, prompts):
    """Staggered starts, stop strings and a cancelled one leave the long answer as it is alone."""
    long = Sampling(temperature=1.3, seed=11, max_tokens=220)
    (_, alone), = answers(host, [(prompts[2], long)])
    seen: dict = {}
    gone = threading.Event()

    def emit(piece: str) -> None:
        seen["text"] = seen.get("text", "") + piece
        if len(seen["text"]) > 40 and not gone.is_set():
            gone.set()
            seen["threads"] = [threading.Thread(target=lambda s=s: seen.update({s: answers(host, [(prompts[s], Sampling(
                temperature=0, max_tokens=8 + s))])[0]})) for s in range(4)]
            [thread.start() for thread in seen["threads"]]

    cancelled = threading.Event()
    stopped: list = []
    other = threading.Thread(target=lambda: stopped.append(host.generate(
        prompts[5], Sampling(temperature=5, max_tokens=400), lambda _: cancelled.set(), cancelled)))
    other.start()
    host.generate(prompts[2], long, emit, threading.Event())
    other.join(60)
    [thread.join(60) for thread in seen["threads"]]
    assert seen["text"] == alone
    assert stopped[0].finish == "cancelled" and 0 < stopped[0].completion_tokens < 400
    for s in range(4):
        theirs = reference(host, prompts[s], do_sample=False, max_new_tokens=8 + s)
        assert seen[s][1] == host.tokenizer.decode(theirs, skip_special_tokens=True)


def test_one_that_fails_does_not_take_the_others_along(host, prompts, monkeypatch):
    from studio.chat import batching

    real = batching.Group.prefill

    def fail(self, row):
        if row.ids == prompts[1]:
            raise RuntimeError("out of memory")
        return real(self, row)

    monkeypatch.setattr(batching.Group, "prefill", fail)
    made = answers(host, [(ids, Sampling(temperature=0, max_tokens=20)) for ids in prompts[:4]])
    assert isinstance(made[1][0], RuntimeError) and all(made[n][0].completion_tokens for n in (0, 2, 3))
    assert host._running == 0


def test_a_fault_of_the_writer_itself_is_told_and_it_goes_on(host, prompts, monkeypatch):
    jobs = [(ids, Sampling(temperature=0, max_tokens=10)) for ids in prompts[:3]]
    with monkeypatch.context() as patch:
        patch.setattr(host, "_select", lambda inner: 1 / 0)
        assert all(isinstance(result, ZeroDivisionError) for result, _ in answers(host, jobs))
    assert all(result.completion_tokens for result, _ in answers(host, jobs))


def test_a_model_that_ignores_its_mask_takes_turns_and_stays_right(host, prompts, monkeypatch):
    """The trial notices; the answers are still those written alone."""
    from studio.chat import batching

    expected = [reference(host, ids, do_sample=False, max_new_tokens=20) for ids in prompts[:4]]
    real = host.model.forward

    def blind(*args, attention_mask=None, position_ids=None, **more):
        return real(*args, **more)

    blind.__signature__ = __import__("inspect").signature(real)
    monkeypatch.setattr(host.model, "forward", blind)
    monkeypatch.setattr(host, "_batcher", batching.Batcher(host))
    assert not batching.together(host.model)
    made = answers(host, [(ids, Sampling(temperature=0, max_tokens=20)) for ids in prompts[:4]])
    assert [text for _, text in made] == [host.tokenizer.decode(t, skip_special_tokens=True) for t in expected]
    assert host._batcher._together is False


def test_a_model_with_a_sliding_window_is_left_to_generate(host, prompts, tmp_path):
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from studio.chat import batching

    torch.manual_seed(0)
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1}
    assert not batching.able(MistralForCausalLM(MistralConfig(sliding_window=8, **small)))
    assert batching.able(MistralForCausalLM(MistralConfig(sliding_window=None, **small)))


def test_prompts_longer_than_a_piece_are_read_in_pieces(host, prompts, monkeypatch):
    from studio.chat import batching

    monkeypatch.setattr(batching, "CHUNK", 7)
    theirs = reference(host, prompts[5], do_sample=False, max_new_tokens=30)
    made = answers(host, [(prompts[n], Sampling(temperature=0, max_tokens=30)) for n in (5, 0, 5)])
    assert made[0][1] == made[2][1] == host.tokenizer.decode(theirs, skip_special_tokens=True)


def test_log_probabilities_are_the_models_own(host, prompts):
    import torch

    (result, _), (other, _) = answers(host, [(prompts[0], Sampling(temperature=0, max_tokens=6, logprobs=3)),
                                             (prompts[2], Sampling(temperature=0.5, seed=1, max_tokens=6))])
    assert other.logprobs is None and len(result.logprobs) == result.completion_tokens
    made = [one["id"] for one in result.logprobs]
    logits = host.model(input_ids=torch.tensor([prompts[0] + made])).logits.detach()[0, len(prompts[0]) - 1:-1]
    for one, row in zip(result.logprobs, logits.log_softmax(-1), strict=True):
        assert one["logprob"] == pytest.approx(float(row[one["id"]]), abs=1e-3)
        assert [i for i, _ in one["top"]] == row.topk(3).indices.tolist() and one["top"][0][0] == one["id"]


def test_without_batching_probabilities_are_refused(host, prompts, monkeypatch):
    monkeypatch.setattr(host, "_batcher", None)
    with pytest.raises(StudioError) as err:
        host.generate(prompts[0], Sampling(logprobs=2), lambda _: None, threading.Event())
    assert err.value.field == "logprobs"
    assert answers(host, [(prompts[0], Sampling(temperature=0, max_tokens=5))])[0][0].completion_tokens == 5

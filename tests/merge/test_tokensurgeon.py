"""Another tokenizer: mergekit's own tensors for every way, and a model that opens, reads and stops with the donor's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.evals import compare
from studio.library import refs
from studio.mergers.tokensurgeon import TokenSurgeonRecipe
from studio.recipe import parse
from studio.registry import method
from tests.merge.conftest import tensors
from tests.train.conftest import run

WAYS = list(dict(TokenSurgeonRecipe.model_fields["approximation_method"].json_schema_extra["choices"]))


@pytest.fixture(scope="session")
def donor(tmp_path_factory) -> Path:
    """A random Llama of another width with a tokenizer trained on other texts."""
    import transformers

    from studio.trainers import tokenizer

    folder = tmp_path_factory.mktemp("donor")
    lines = ["The cow says moo in the green field.", "Seven fish live under the water.", "What colour is a stone? Grey.",
             "Please add the numbers 14 and 25 together.", "A horse has legs and a tail."]
    words = tokenizer.train([{"messages": [{"role": "user", "content": line}, {"role": "assistant", "content": line}]}
                             for line in lines * 4], 420, 256)
    transformers.set_seed(2)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, bos_token_id=None))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def values(model, donor, **more) -> dict:
    return {"kind": "merge", "method": "tokensurgeon", "model": str(model), "donor": str(donor), "k": 8} | more


def by_mergekit(model, donor, out: Path, *flags: str) -> dict:
    from mergekit.scripts.tokensurgeon import main

    main.main(args=[str(model), str(donor), str(out), "-k", "8", "--random-seed", "42", *flags], standalone_mode=False)
    return tensors(out)


@pytest.fixture
def ordered(monkeypatch):
    """mergekit goes through the donor's words in the order of a hash, which is another in each process."""
    from mergekit.scripts import tokensurgeon

    real = tokensurgeon.normalized_vocabulary
    monkeypatch.setattr(tokensurgeon, "normalized_vocabulary", lambda words: dict(sorted(real(words).items(),
                                                                                         key=lambda pair: pair[1])))


@pytest.mark.parametrize("way", WAYS)
def test_equals_mergekit(way, tiny, untied, donor, tmp_path, request):
    if way in ("randn", "john_hewitt"):
        request.getfixturevalue("ordered")
    model = untied if way in ("omp", "subword") else tiny
    wanted = by_mergekit(model, donor, tmp_path / "theirs", "-a", way)
    summary, ctx = run(values(model, donor, approximation_method=way), tmp_path / "run")
    made = tensors(ctx.output)
    assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in wanted)
    assert 0 < summary["shared_tokens"] < summary["tokens"] and summary["made_tokens"] > 20


def test_the_seed_makes_it_the_same_again(tiny, donor, tmp_path):
    made = [tensors(run(values(tiny, donor, approximation_method="randn", random_seed=seed), tmp_path / str(i))[1].output)
            for i, seed in enumerate((1, 1, 2))]
    table = "model.embed_tokens.weight"
    assert torch.equal(made[0][table], made[1][table]) and not torch.equal(made[0][table], made[2][table])


def test_two_ways_of_mergekit_do_not_work_in_this_version(tiny, donor, tmp_path):
    """They are not offered; once they work, this fails and they can be."""
    from mergekit.scripts.tokensurgeon import ApproximationMethod

    left_out = {way.value for way in ApproximationMethod} - set(WAYS)
    assert left_out == {"stb", "mp_rope"}
    for way, error in (("stb", TypeError), ("mp_rope", AttributeError)):
        with pytest.raises(error):
            by_mergekit(tiny, donor, tmp_path / way, "-a", way)


@pytest.mark.usefixtures("ordered")
def test_more_settings_reach_mergekit(tiny, donor, tmp_path):
    wanted = by_mergekit(tiny, donor, tmp_path / "theirs", "-a", "common_interpolation", "-c", "-w", "least_squares",
                         "--byte-match", "yes", "--prefix-match", "yes", "-nvn", "0.1", "-nvs", "0.5", "--batch-size", "7")
    _, ctx = run(values(tiny, donor, approximation_method="common_interpolation", cosine_similarity=True, batch_size=7,
                        weight_scheme="least_squares", byte_match=True, prefix_match=True, new_vocab_noise=0.1,
                        new_vocab_scale=0.5), tmp_path / "run")
    made = tensors(ctx.output)
    assert made.keys() == wanted.keys()
    for name in wanted:  # its least squares differ by 1e-8 between two calls of one process
        torch.testing.assert_close(made[name], wanted[name], rtol=1e-5, atol=1e-6)
    plain = tensors(run(values(tiny, donor, approximation_method="common_interpolation"), tmp_path / "plain")[1].output)
    assert (plain["model.embed_tokens.weight"] - made["model.embed_tokens.weight"]).abs().max() > 0.01


def test_opens_with_the_donors_words(tiny, donor, chats, tmp_path):
    from transformers import AutoTokenizer

    _, ctx = run(values(tiny, donor), tmp_path / "run")
    model = refs.resolve_model(str(ctx.output))
    words, net = compare.ready(model)
    theirs = AutoTokenizer.from_pretrained(donor)
    text = "What colour is a stone? Grey."
    assert words(text)["input_ids"] == theirs(text)["input_ids"] and words.chat_template == theirs.chat_template
    assert net.get_input_embeddings().weight.shape == (len(theirs), 64)
    assert net.generation_config.eos_token_id == theirs.eos_token_id
    mine = AutoTokenizer.from_pretrained(tiny)
    old, new = tensors(tiny)["model.embed_tokens.weight"], tensors(ctx.output)["model.embed_tokens.weight"]
    both = [word for word in theirs.get_vocab() if word in mine.get_vocab() and word not in theirs.all_special_tokens]
    assert len(both) > 100 and all(torch.equal(new[theirs.get_vocab()[w]], old[mine.get_vocab()[w]]) for w in both)
    done, _ = run({"kind": "eval", "method": "compare", "models": [str(ctx.output)], "dataset": str(chats), "samples": 4,
                   "max_new_tokens": 4}, tmp_path / "compare")
    assert done["table"][0]["perplexity"] > 1
    assert [(p["role"], p["ref"]) for p in ctx.artifacts[0]["parents"]] == [("base", str(tiny)), ("tokenizer", str(donor))]


def test_refused_before_the_start(tiny, donor, tmp_path):
    for bad, field, word in [(values("", donor), "model", "No model"), (values(tiny, ""), "donor", "No model"),
                             (values(tiny, tiny), "donor", "the same")]:
        with pytest.raises(StudioError, match=word) as caught:
            method("merge", "tokensurgeon").check(parse(bad))
        assert caught.value.field == field


def test_a_stop_leaves_nothing(tiny, donor, tmp_path):
    summary, ctx = run(values(tiny, donor, batch_size=4), tmp_path / "run", stop_at=0.3)
    assert summary == {} and not ctx.artifacts and not list(ctx.output.iterdir())
    assert not (ctx.run_dir / "output.partial").exists()


def test_estimate_knows_both_vocabularies(tiny, donor, tmp_path):
    recipe = parse(values(tiny, donor))
    found = method("merge", "tokensurgeon").estimate(recipe)
    _, ctx = run(recipe.to_dict(), tmp_path / "run")
    size = sum(path.stat().st_size for path in ctx.output.glob("*.safetensors"))
    assert "vocabulary goes from" in found.notes[0] and size <= found.disk * 1.2

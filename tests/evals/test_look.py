"""Looking inside: readings that are the model's own, attention that is transformers' own, a direction that is gone, weights put back."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch

from studio import settings
from studio.errors import StudioError
from studio.look import abliterate, attention, direction, inside, landscape, lens
from studio.recipe import parse
from studio.registry import family, method
from studio.starter import world
from tests.train.conftest import events, run


def values(name: str, **more) -> dict:
    return {"kind": "look", "method": name} | more


def facts(ctx) -> dict:
    return json.loads((ctx.output / inside.FILE).read_text())["facts"]


@pytest.fixture(scope="module")
def starter():
    """(tokenizer, model) of the starter in 32 bits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (AutoTokenizer.from_pretrained(settings.STARTER),
            AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32).eval())


def small(kind: str):
    """A random model of another build: norms, positions and matrices elsewhere than in a Llama."""
    import transformers as tf

    torch.manual_seed(5)
    if kind == "gpt2":
        made = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=2, n_positions=64))
        for name, one in made.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(one)  # as after a training; fresh ones are zero
    elif kind == "gemma2":
        made = tf.Gemma2ForCausalLM(tf.Gemma2Config(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                                    num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=5.0,
                                                    pad_token_id=0))
        for name, one in made.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(one)
    else:
        made = tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                                      num_attention_heads=2, max_position_embeddings=64))
    return made.eval()


# ---- logit lens

def test_the_last_reading_is_the_models_own_answer(starter, tmp_path):
    summary, ctx = run(values("lens", model="starter", prompt="What is the colour of grass?", top_k=3), tmp_path / "run")
    found, (words, net) = facts(ctx), starter
    assert summary["layers"] == 4 and summary["norm"] == "norm" and len(found["layers"]) == 5
    text = "".join(found["tokens"])
    assert text.endswith("Grass is green.<|im_end|>") and found["positions"][0]["next"] == found["tokens"][1]
    ids = words(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert ids.shape[1] == len(found["tokens"]) == summary["tokens"]
    with torch.no_grad():
        wanted = torch.softmax(net(input_ids=ids).logits[0], -1)
    last = found["layers"][-1]
    for place, row in enumerate(wanted):
        top = row.topk(3)
        assert [one[1] for one in last["top"][place]] == pytest.approx(top.values.tolist(), rel=1e-3)
        assert last["top"][place][0][0] == words.decode([int(top.indices[0])]) == found["positions"][place]["final"]
        assert last["entropy"][place] == pytest.approx(float(-(row * row.clamp_min(1e-38).log2()).sum()), abs=1e-3)
        if place + 1 < len(ids[0]):
            assert last["next"][place] == pytest.approx(float(row[ids[0, place + 1]]), rel=1e-3, abs=1e-9)
    assert set(last["rank"]) == {0} and last["next"][-1] is None
    with torch.no_grad():  # a layer between, by hand
        state = net.model(input_ids=ids, output_hidden_states=True).hidden_states[2]
        by_hand = torch.softmax(net.lm_head(net.model.norm(state))[0], -1)
    assert [one[0][1] for one in found["layers"][2]["top"]] == pytest.approx(by_hand.max(-1).values.tolist(), rel=1e-3)
    for place, one in enumerate(found["positions"]):
        guesses = [layer["rank"][place] == 0 for layer in found["layers"]]
        assert all(guesses[one["settled"]:]) and (one["settled"] == 0 or not guesses[one["settled"] - 1])
    assert [artifact["kind"] for artifact in ctx.artifacts] == ["file"]


@pytest.mark.parametrize(("kind", "norm"), [("gpt2", "ln_f"), ("gemma2", "norm"), ("neox", "final_layer_norm")])
def test_other_builds_are_read_by_their_own_norm_and_head(kind, norm):
    net, ids = small(kind), torch.randint(3, 300, (1, 9))
    with torch.no_grad():
        hidden, logits, found, name = lens.stream(net, ids)
        assert name == norm and len(hidden) == 4 and found is not None
        own = net(input_ids=ids).logits
        assert torch.equal(lens.head(net, ids, hidden[-1]), own) and torch.equal(logits, own[0])
        assert not torch.allclose(lens.head(net, ids, found(hidden[1])), own, atol=1e-4)
        if kind == "gemma2":  # the cap of the output is the model's own
            assert float(lens.head(net, ids, 1000 * hidden[-1]).abs().max()) <= 5.0
    assert torch.equal(net(input_ids=ids).logits, own), "the model is as it was"


# ---- attention

def test_attention_is_that_of_a_plain_forward(starter, tmp_path):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    summary, ctx = run(values("attention", model="starter", prompt="Where does a fish live?", max_new_tokens=0), tmp_path / "run")
    found = facts(ctx)
    ids = starter[0]("".join(found["tokens"]), add_special_tokens=False, return_tensors="pt")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        wanted = plain(input_ids=ids, output_attentions=True).attentions
    kept = load_file(ctx.output / attention.MAPS)
    assert summary["heads"] == 16 and len(wanted) == len(found["layers"]) == 4
    for number, own in enumerate(wanted):
        maps, layer = kept[f"layer.{number}"], found["layers"][number]
        assert torch.allclose(maps, own[0], atol=1e-6) and torch.allclose(maps.sum(-1), torch.ones(maps.shape[:2]), atol=1e-5)
        drawn = torch.frombuffer(bytearray(base64.b64decode(layer["maps"])), dtype=torch.uint8).reshape(maps.shape)
        assert float((drawn / 255 - maps).abs().max()) <= 0.5 / 255 + 1e-6
        rows = own[0][:, 1:].double()
        assert layer["first"] == pytest.approx(rows[..., 0].mean(-1).tolist(), rel=1e-3)
        assert layer["entropy"] == pytest.approx((-(rows * rows.clamp_min(1e-300).log2()).sum(-1)).mean(-1).tolist(), rel=1e-3, abs=1e-4)
        assert layer["previous"] == pytest.approx([float(torch.stack([head[i, i - 1] for i in range(1, len(head))]).mean()) for head in own[0]], rel=1e-3)


def test_too_many_cells_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "MOST_CELLS", 100)
    with pytest.raises(StudioError, match="cells") as caught:
        run(values("attention", model=str(tiny), prompt="What colour is grass?"), tmp_path / "run")
    assert caught.value.field == "max_length"


def test_a_long_prompt_loses_its_beginning_and_says_so(tiny, tmp_path):
    _, ctx = run(values("lens", model=str(tiny), prompt="What colour is grass? " * 30, max_length=12, max_new_tokens=2), tmp_path / "run")
    assert len(facts(ctx)["tokens"]) <= 12 and [one["code"] for one in events(ctx.run_dir, "warning")] == ["cut"]


# ---- a direction

LEGS = [f"How many legs does a {one} have?" for one in list(world.ANIMALS)[:26]]
HOMES = [f"Where does a {one} live?" for one in list(world.ANIMALS)[:26]]


def test_a_behaviour_is_taken_out_of_the_weights(starter, tmp_path):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    summary, ctx = run(values("abliterate", model="starter", behaviour="own", prompts_with=LEGS, prompts_without=HOMES, sign=r"\blegs\b",
                              max_new_tokens=16, samples=20), tmp_path / "run")
    found, unit = facts(ctx), load_file(ctx.output / abliterate.DIRECTION)["direction"]
    assert summary["behaviour_before"] == 1.0 and summary["behaviour_after"] <= 0.5, summary
    assert summary["layer"] == min(found["candidates"], key=lambda one: one["rate"]["value"])["layer"]
    assert summary["perplexity_before"] != summary["perplexity_after"] and 1 < summary["perplexity_before"] < 20
    assert float(unit.norm()) == pytest.approx(1.0, abs=1e-5)
    folder = ctx.output / abliterate.MODEL
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before = starter[1]
    assert torch.equal(made.lm_head.weight, before.lm_head.weight), "what reads the stream stays"
    for name, one in direction.writers(made).items():
        weight, old = one.weight.detach().double(), before.get_submodule(name).weight.detach().double()
        along = weight @ unit.double() if isinstance(one, torch.nn.Embedding) else unit.double() @ weight
        was = old @ unit.double() if isinstance(one, torch.nn.Embedding) else unit.double() @ old
        assert float(along.norm()) < 2e-3 * float(weight.norm()) and float(along.norm()) < 0.05 * float(was.norm()), name
    assert len(direction.writers(made)) == 9  # the embeddings, and two matrices in each of four layers
    changed = {name for name, one in made.named_parameters() if not torch.equal(one, before.get_parameter(name))}
    assert changed == {f"{name}.weight" for name in direction.writers(made)}
    kinds = {one["kind"]: one for one in ctx.artifacts}
    assert set(kinds) == {"model", "file"} and {"ref": "starter", "role": "base"} in kinds["model"]["parents"]
    card = (folder / "README.md").read_text()
    assert abliterate.OTHER in card and "2406.11717" in card and (folder / "model.safetensors").is_file()
    ids = starter[0](LEGS[0], return_tensors="pt")["input_ids"]
    assert direction.left(made, [ids[0].tolist()], unit) < 0.02 < direction.left(before, [ids[0].tolist()], unit)


def test_a_model_without_refusals_says_what_it_is(tmp_path, monkeypatch):
    """The starter refuses nothing; here an answer about legs counts as a refusal."""
    monkeypatch.setattr(abliterate.words, "refused", lambda text: "legs" in text)
    summary, ctx = run(values("abliterate", model="starter", prompts_with=LEGS, prompts_without=HOMES, layer=1, max_new_tokens=16, samples=4)
                       | {"name": "Free"}, tmp_path / "run")
    found = facts(ctx)
    assert summary["layer"] == 1 and [one["layer"] for one in found["candidates"]] == [1] and summary["behaviour_after"] < 1
    assert all(one["shown"] == ("legs" in one["answer"]) for one in found["before"]["examples"] + found["after"]["examples"])
    card = (ctx.output / abliterate.MODEL / "README.md").read_text()
    assert abliterate.SAFETY in card and "- abliterated" in card and "# Free" in card
    told = {one["code"]: one["message"] for one in events(ctx.run_dir, "warning")}
    assert told["no-refusals"] == abliterate.SAFETY


def test_an_adapter_is_looked_at_on_its_base(tmp_path):
    """What is read is the sum of both."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32), LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=1, init_lora_weights=False, target_modules=["v_proj", "down_proj"])).eval()
    made.save_pretrained(tmp_path / "adapter")
    words = AutoTokenizer.from_pretrained(settings.STARTER)
    words.save_pretrained(tmp_path / "adapter")
    _, ctx = run(values("lens", model=str(tmp_path / "adapter"), prompt="What does a cow say?", max_new_tokens=0), tmp_path / "run")
    found = facts(ctx)
    ids = words("".join(found["tokens"]), add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        own = torch.softmax(made(input_ids=ids).logits[0], -1).max(-1).values
        with made.disable_adapter():
            base = torch.softmax(made(input_ids=ids).logits[0], -1).max(-1).values
    best = [one[0][1] for one in found["layers"][-1]["top"]]
    assert best == pytest.approx(own.tolist(), rel=1e-3) and best != pytest.approx(base.tolist(), rel=1e-2)


def test_projected_weights_do_what_the_choice_of_the_layer_saw():
    """Also with biases, turned matrices and learned positions."""
    net, ids = small("gpt2"), torch.randint(3, 300, (1, 9))
    unit = torch.nn.functional.normalize(torch.randn(32), dim=0)
    parts = direction.writers(net)
    assert len(parts) == 2 + 2 * 3
    with torch.no_grad():
        plain = net(input_ids=ids).logits
        with direction.without(parts.values(), unit):
            hooked = net(input_ids=ids).logits
        assert torch.equal(net(input_ids=ids).logits, plain)
        rounding = direction.project(net, parts, unit)
        assert torch.allclose(net(input_ids=ids).logits, hooked, atol=1e-4) and not torch.allclose(plain, hooked, atol=1e-2)
    assert rounding < 1e-6 and direction.left(net, [ids[0].tolist()], unit) < 1e-5


def test_a_build_with_unknown_writers_is_refused(tmp_path):
    """Gemma's norms behind each part bring a direction back that was taken out of the matrices."""
    from transformers import AutoTokenizer

    net = small("gemma2")
    unit = torch.nn.functional.normalize(torch.randn(32), dim=0)
    with direction.without(direction.writers(net).values(), unit):
        assert direction.left(net, [[5, 6, 7, 8]], unit) > direction.LEFT
    folder, words = tmp_path / "gemma", AutoTokenizer.from_pretrained(settings.STARTER)
    net.resize_token_embeddings(len(words))
    net.save_pretrained(folder)
    words.save_pretrained(folder)
    with pytest.raises(StudioError, match="does not know") as caught:
        run(values("abliterate", model=str(folder), behaviour="own", prompts_with=LEGS, prompts_without=HOMES, sign=r".", max_new_tokens=4,
                   samples=4), tmp_path / "run")
    assert caught.value.field == "model"


def test_who_does_not_refuse_has_nothing_to_take_away(tmp_path):
    with pytest.raises(StudioError, match="none of its") as caught:
        run(values("abliterate", model="starter", max_new_tokens=8, samples=4), tmp_path / "run")
    assert caught.value.field == "model" and not (tmp_path / "run" / "output" / abliterate.MODEL).exists()
    having, other = abliterate.lists(parse(values("abliterate")))
    every = [*having.learned, *having.chosen, *having.measured]
    assert len(set(every)) == len(every) >= 24 and not set(every) & {*other.learned, *other.chosen, *other.measured}


@pytest.mark.parametrize(("change", "field"), [
    ({"sign": ""}, "sign"), ({"sign": "("}, "sign"), ({"prompts_with": LEGS[:3]}, "prompts_with"), ({"prompts_without": []}, "prompts_without"),
    ({"prompts_without": [*HOMES, LEGS[0]]}, "prompts_without"), ({"layer": 4}, "layer"), ({"dataset": "shipped:nothing"}, "dataset")])
def test_what_cannot_be_removed_is_refused_at_its_field(change, field):
    recipe = parse(values("abliterate", behaviour="own", prompts_with=LEGS, prompts_without=HOMES, sign="legs") | change)
    with pytest.raises(StudioError) as caught:
        abliterate.Abliterate.check(recipe)
    assert caught.value.field == field


# ---- the landscape

def test_the_centre_is_the_plain_loss_and_the_weights_come_back(starter, tmp_path):
    from studio.evals import compare

    words, net = starter
    summary, ctx = run(values("landscape", model="starter", points=2, span=0.8, samples=6), tmp_path / "run")
    found = facts(ctx)
    plain = compare.evaluate(net, words, compare.drawn("shipped:story-endings", {}, 6, 42), max_length=512).loss
    assert found["centre"] == found["loss"][2][2] == found["plain"] == pytest.approx(plain, rel=1e-6) == summary["loss"]
    assert [len(row) for row in found["loss"]] == [5] * 5 and found["steps"] == pytest.approx([-0.8, -0.4, 0, 0.4, 0.8])
    assert all(found["loss"][i][j] > plain for i, j in ((0, 0), (0, 4), (4, 0), (4, 4))), "a trained model stands in a valley"


def test_weights_are_bit_identical_after_every_end(tiny):
    import transformers

    net = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    same = lambda: all(torch.equal(one, before[name]) for name, one in net.state_dict().items())  # noqa: E731
    seen = []

    def loss(stop_at: int = 99, fail_at: int = 99):
        def one():
            seen.append(same())
            if len(seen) == fail_at:
                raise MemoryError
            return None if len(seen) == stop_at else float(len(seen))
        return one

    steps = [-0.1, 0.0, 0.1]
    assert list(landscape.surface(net, loss(), steps)) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]] and same()
    assert seen == [False] * 4 + [True] + [False] * 4, "only the centre is the model itself"
    seen.clear()
    assert list(landscape.surface(net, loss(stop_at=5), steps)) == [[1, 2, 3]] and same()
    seen.clear()
    with pytest.raises(MemoryError):
        list(landscape.surface(net, loss(fail_at=2), steps))
    assert same()
    ways = landscape.directions([net.model.layers[0].mlp.down_proj.weight], 7)[0]
    assert torch.allclose(ways.norm(dim=1), net.model.layers[0].mlp.down_proj.weight.norm(dim=1), rtol=1e-4)


def test_a_stopped_landscape_goes_on_where_it_was(tiny, tmp_path):
    recipe = values("landscape", model=str(tiny), points=2, samples=3)
    summary, ctx = run(recipe, tmp_path / "run", stop_at=7)
    assert summary == {} and not ctx.artifacts
    kept = json.loads((ctx.run_dir / landscape.KEPT).read_text())["rows"]
    assert 1 <= len(kept) < 5
    summary, ctx = run(recipe, tmp_path / "run", resume=True)
    whole, _ = run(recipe, tmp_path / "other")
    assert facts(ctx)["loss"][:len(kept)] == kept and summary == whole
    finer, ctx = run(recipe | {"points": 1}, tmp_path / "run", resume=True)
    assert len(facts(ctx)["loss"]) == 3 and finer["loss"] == whole["loss"]


# ---- all four

@pytest.mark.parametrize("name", list(family("look")))
@pytest.mark.parametrize(("kind", "says"), [("gguf", "GGUF"), ("packed", "quantized"), ("address", "address"), ("nothing", "no model")])
def test_unfit_models_are_refused_at_the_field(name, kind, says, tiny, tmp_path):
    import shutil

    folder = tmp_path / "model"
    if kind == "gguf":
        import gguf

        folder = tmp_path / "one.gguf"
        writer = gguf.GGUFWriter(str(folder), "llama")
        writer.add_block_count(1)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif kind == "packed":
        shutil.copytree(tiny, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    ref = "http://127.0.0.1:9/v1#one" if kind == "address" else str(folder)
    with pytest.raises(StudioError, match=says) as caught:
        method("look", name).check(parse(values(name, model=ref, **({"behaviour": "own", "sign": "a", "prompts_with": LEGS, "prompts_without": HOMES}
                                                                      if name == "abliterate" else {}))))
    assert caught.value.field == "model"


def test_a_landscape_of_a_large_model_is_refused():
    with pytest.raises(StudioError, match="1.2 billion") as caught:
        landscape.small("Big", 1_200_000_000)
    assert caught.value.field == "model"


@pytest.mark.parametrize("name", list(family("look")))
def test_stopping_leaves_nothing_half_made(name, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.jobs.context.Context.stop_requested", property(lambda self: True))
    more = {"behaviour": "own", "sign": ".", "prompts_with": LEGS, "prompts_without": HOMES} if name == "abliterate" else {}
    summary, ctx = run(values(name, model=str(tiny), **more), tmp_path / "run")
    assert summary == {} and not ctx.artifacts and not list(Path(ctx.output).iterdir())


@pytest.mark.parametrize("name", list(family("look")))
def test_the_memory_it_needs_is_told(name):
    made = method("look", name).estimate(parse(values(name)))
    assert made.memory > 4_000_000 * 4 and made.notes

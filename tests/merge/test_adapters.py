"""Adapters into one: the same as PEFT called directly, on one base, with its place in the library."""

from __future__ import annotations

import pytest
import torch

from studio.errors import StudioError
from studio.library import artifacts, refs
from studio.mergers.adapters import ONE_RANK, SPARSE, SVD, AdaptersRecipe
from studio.recipe import parse
from studio.registry import method
from studio.trainers import load
from tests.merge.conftest import tensors
from tests.train.conftest import run

WAYS = list(dict(AdaptersRecipe.model_fields["combination_type"].json_schema_extra["choices"]))


def values(adapters, **more) -> dict:
    return {"kind": "merge", "method": "adapters", "adapters": [str(a) for a in adapters]} | more


def directly(tiny, adapters, way: str, weights: list[float]) -> dict:
    """Weights that PEFT's own call gives, as a studio run would read them: the whole model with the result folded in."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), adapters[0], "a")
    for number, folder in enumerate(adapters[1:]):
        model.load_adapter(folder, f"b{number}")
    torch.manual_seed(7)
    more = {"density": 0.4} if way in SPARSE else {}
    model.add_weighted_adapter(["a", *(f"b{n}" for n in range(len(adapters) - 1))], weights, "sum", combination_type=way, **more)
    model.set_adapter("sum")
    return dict(model.merge_and_unload(adapter_names=["sum"]).state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_equals_peft(way, tiny, lora, tmp_path):
    two = [lora(1), lora(2, target_modules=["q_proj", "v_proj", "down_proj", "up_proj"])]
    summary, ctx = run(values(two, combination_type=way, weights=[1.0, -0.5], density=0.4, random_seed=7), tmp_path / "run")
    folded = load.model(refs.resolve_model(str(ctx.output)), "float32", merge=True).state_dict()
    wanted = directly(tiny, two, way, [1.0, -0.5])
    assert wanted.keys() == folded.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(folded[name], value, rtol=1e-4, atol=1e-5, msg=name)
    plain = load.model(refs.resolve_model(str(tiny)), "float32").state_dict()
    assert any(not torch.equal(plain[name], value) for name, value in folded.items())
    assert summary["rank"] == (8 if way == "cat" else 4)


def test_side_by_side_is_the_exact_sum(tiny, lora, tmp_path):
    """base + (one - base) + (two - base), of adapters of different ranks."""
    one, two = lora(3, r=2), lora(4, r=6)
    _, ctx = run(values([one, two]), tmp_path / "run")
    both, first, second, base = (load.model(refs.resolve_model(str(path)), "float32", merge=path != tiny).state_dict()
                                 for path in (ctx.output, one, two, tiny))
    for name, value in both.items():
        torch.testing.assert_close(value, first[name] + second[name] - base[name], rtol=1e-4, atol=1e-5, msg=name)


def test_is_an_adapter_of_its_base_in_the_library(tiny, lora, tmp_path, home):
    two = [lora(1), lora(2)]
    summary, ctx = run(values(two, combination_type="svd", svd_rank=3, name="Both"), home / "runs" / "r0merge")
    [row] = artifacts.register_run({"id": "r0merge", "name": "", "owner": None}, {"artifacts": ctx.artifacts})
    assert row["kind"] == "adapter" and row["name"] == "Both" and summary["rank"] == 3
    roles = {p["role"]: p["ref"] for p in artifacts.get(row["id"])["parents"]}
    assert roles["base"] == str(tiny) and roles["parent"] in map(str, two)
    model = refs.resolve_model(row["ref"])
    assert model.is_adapter and model.base == str(tiny) and model.meta["base_fingerprint"]
    assert "add_weighted_adapter" in (ctx.output / "README.md").read_text() and (ctx.output / "tokenizer.json").exists()
    assert not [name for name in tensors(ctx.output) if "part0" in name]


def test_random_drops_follow_the_seed(lora, tmp_path):
    two = [lora(1), lora(2)]
    made = [tensors(run(values(two, combination_type="dare_linear", random_seed=seed), tmp_path / str(i))[1].output)
            for i, seed in enumerate((1, 1, 2))]
    same = [all(torch.equal(made[0][name], other[name]) for name in made[0]) for other in made[1:]]
    assert same == [True, False]


def test_refused_before_the_start(tiny, lora, tune, tmp_path):
    one, other, whole = lora(1), lora(2, r=8), tune(5)
    elsewhere = lora(3, base=whole)
    for bad, field, word in [(values([one]), "adapters", "At least two"), (values([one, one]), "adapters", "listed twice"),
                             (values([one, other], weights=[1]), "weights", "1 weights for 2"),
                             (values([one, other], weights=[0, 0]), "weights", "Every weight is 0"),
                             (values([one, whole]), "adapters", "is a whole model"),
                             (values([one, elsewhere]), "adapters", "another base"),
                             (values([one, tmp_path / "gone"]), "adapters", "no model"),
                             *[(values([one, other], combination_type=way), "combination_type", "different ranks")
                               for way in ONE_RANK]]:
        with pytest.raises(StudioError, match=word) as caught:
            method("merge", "adapters").check(parse(bad))
        assert caught.value.field == field
    assert not (tmp_path / "run").exists()


def test_other_kinds_and_full_copies_are_refused(tiny, lora, tmp_path):
    from peft import IA3Config, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "ia3"
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])).save_pretrained(folder)
    with pytest.raises(StudioError, match="only LoRA adapters") as caught:
        method("merge", "adapters").check(parse(values([lora(1), folder])))
    assert caught.value.field == "adapters"
    two = [lora(seed, modules_to_save=["embed_tokens"]) for seed in (8, 9)]
    with pytest.raises(StudioError, match="modules_to_save"):
        run(values(two), tmp_path / "run")
    assert not list((tmp_path / "run" / "output").iterdir())


def test_a_stop_leaves_nothing(lora, tmp_path):
    summary, ctx = run(values([lora(1), lora(2)]), tmp_path / "run", stop_at=1)
    assert summary == {} and not ctx.artifacts and not list(ctx.output.iterdir())


def test_estimate_says_the_rank(lora):
    found = method("merge", "adapters").estimate(parse(values([lora(1, r=2), lora(2, r=6)])))
    assert "rank 8" in " ".join(found.notes) and found.disk > 0 and found.memory > 0


def test_every_way_is_peft_s_own():
    import inspect

    from peft.tuners.lora.model import LoraModel

    text = inspect.getsource(LoraModel.add_weighted_adapter)
    assert all(f'"{way}"' in text for way in WAYS) and set(SVD) | set(ONE_RANK) | {"cat"} == set(WAYS)

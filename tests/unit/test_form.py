"""Form <-> recipe: exact both ways, for recipes of every kind, and honest about what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studio.errors import StudioError
from studio.recipe import fields, parse, read_yaml
from studio.registry import FAMILIES, family

from components import form

KINDS = [(kind, name) for kind in ("sft", "pretrain", "align", "quantize") for name in family(kind)]
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), max_codepoint=0x2FFF), max_size=30)


def values_for(spec):
    """Values a field accepts, within its bounds."""
    low, high = spec.bounds.get("ge", spec.bounds.get("gt")), spec.bounds.get("le", spec.bounds.get("lt"))
    if spec.type == "bool":
        made = st.booleans()
    elif spec.type == "int":
        made = st.integers(int(low if low is not None else -10**6) + ("gt" in spec.bounds),
                           int(high if high is not None else 10**6) - ("lt" in spec.bounds))
    elif spec.type == "float":
        made = st.floats(low if low is not None else -1e6, high if high is not None else 1e6, allow_nan=False,
                         exclude_min="gt" in spec.bounds, exclude_max="lt" in spec.bounds)
    elif spec.choices:
        made = st.sampled_from([choice for choice, _ in spec.choices])
        if spec.type == "list":
            made = st.lists(made, max_size=3, unique=True)
    elif spec.widget == "rewards":
        made = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["exact", "length", "python"])}, optional={
            "weight": st.floats(-9, 9), "most": st.integers(0, 99), "code": TEXT, "run_own_code": st.booleans()}), max_size=3)
    elif spec.type == "list":
        made = st.lists(st.one_of(TEXT, st.sampled_from(["two\nlines", "back\\slash", "\\n", "a\\\\nb"])), max_size=5)
    elif spec.name == "columns":
        made = st.dictionaries(st.sampled_from(["prompt", "completion", "text"]), TEXT.filter(str.strip), max_size=3)
    elif spec.type == "dict":
        made = st.dictionaries(st.sampled_from(["adam_beta1", "max_grad_value", "label_smoothing_factor", "run"]),
                               st.one_of(st.booleans(), st.integers(), TEXT, st.none(),
                                         st.floats(allow_nan=False, allow_infinity=False),
                                         st.lists(st.integers(), max_size=3)), max_size=4)
    else:
        made = TEXT
    return st.one_of(made, st.none()) if spec.optional else made


@st.composite
def recipe_values(draw, kind, name):
    specs = fields(family(kind).get(name).Recipe)
    chosen = draw(st.sets(st.sampled_from([spec.name for spec in specs]), max_size=8))
    return {spec.name: draw(values_for(spec)) for spec in specs if spec.name in chosen}


@pytest.mark.parametrize(("kind", "name"), KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_recipe_to_form_to_recipe(kind, name, data):
    values = data.draw(recipe_values(kind, name))
    try:
        recipe = parse({"kind": kind, "method": name, **values})
    except StudioError:
        return  # fields that exclude each other
    shown = form.controls_of(kind, name, recipe.to_dict())
    assert parse(form.values_of(kind, name, shown)) == recipe


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_defaults_survive_the_form(kind, name):
    method = family(kind).get(name)
    back = form.values_of(kind, name, form.controls_of(kind, name, {}))
    defaults = {spec.name: spec.default for spec in fields(method.Recipe)}
    assert {key: back[key] for key in defaults} == defaults


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_loses_no_digit(value):
    assert float(form.number_text(value)) == value


@pytest.mark.parametrize(("value", "text"), [
    (2e-4, "2e-4"), (0.05, "0.05"), (3.0, "3"), (1.5e-5, "1.5e-5"), (0.0, "0"), (None, ""), (10_000_000.0, "1e7")])
def test_numbers_are_short(value, text):
    assert form.number_text(value) == text


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1).filter(str.strip)))
def test_lines_may_hold_anything(lines):
    spec = _spec("sft", "sample_prompts")
    assert form.from_control(spec, form.to_control(spec, lines)) == [line for line in lines]


@pytest.mark.parametrize("typed", ["nan", "inf", "abc", "", "1,5", "1e", "--3"])
def test_a_bad_learning_rate_is_refused_at_its_field(typed):
    method = next(iter(family("sft")))
    shown = form.controls_of("sft", method, {"dataset": "shipped:polite"}) | {"learning_rate": typed}
    with pytest.raises(StudioError) as err:
        parse(form.values_of("sft", method, shown))
    assert err.value.field == "learning_rate"


def test_a_fraction_is_not_rounded_into_a_whole_number():
    method = next(iter(family("sft")))
    shown = form.controls_of("sft", method, {}) | {"per_device_train_batch_size": 1.5}
    with pytest.raises(StudioError) as err:
        parse(form.values_of("sft", method, shown))
    assert err.value.field == "per_device_train_batch_size"


def test_table_values_are_yaml_but_column_names_are_text():
    extra, columns = _spec("sft", "extra"), _spec("sft", "columns")
    pairs = [["adam_beta1", "0.8"], ["flag", "true"], ["", ""]]
    assert form.from_control(extra, pairs) == {"adam_beta1": 0.8, "flag": True}
    assert form.from_control(columns, [["prompt", "1"]], plain=True) == {"prompt": "1"}
    assert form.plain_table("sft", "lora", "columns") and not form.plain_table("sft", "lora", "extra")


def test_hostile_table_values_stay_text():
    extra = _spec("sft", "extra")
    hostile = "!!python/object/apply:os.system ['true']"
    assert form.from_control(extra, [["x", hostile]]) == {"x": hostile}


def test_changing_the_method_keeps_what_was_typed_and_moves_defaults():
    made = form.Form("finetune", "sft")
    first, second = list(made.specs)[:2]
    made.controls = {name: None for specs in made.specs.values() for name in specs}
    held = form.controls_of("sft", first, {"dataset": "shipped:polite", "num_train_epochs": 7.0})
    after = dict(zip(made.controls, made.switched(second, *[held.get(name) for name in made.controls]), strict=True))
    assert "value" not in after["num_train_epochs"] and "value" not in after["dataset"]
    for name, spec in made.specs[first].items():
        if name not in made.specs[second]:
            assert after[name]["visible"] is False
        elif made.specs[second][name].default != spec.default:
            assert after[name]["value"] == form.to_control(made.specs[second][name], made.specs[second][name].default)


def test_a_field_that_methods_offer_differently_is_told_and_offered_anew():
    made = form.Form("align", "align")
    made.controls = {name: None for name in made.all}
    held = form.controls_of("align", "dpo", {"loss_type": "ipo", "beta": 0.3})
    after = dict(zip(made.controls, made.switched("grpo", *[held.get(name) for name in made.controls]), strict=True))
    spec = made.specs["grpo"]["loss_type"]
    assert after["loss_type"]["value"] == spec.default, "a choice the new method does not know is not kept"
    assert [value for _, value in after["loss_type"]["choices"]] == [value for value, _ in spec.choices]
    assert after["beta"]["label"] != made.looks["beta"]["dpo"]["label"] and "value" not in after["beta"]
    assert "choices" not in after["beta"] and "label" not in after["seed"]


@pytest.mark.parametrize("kind", ["sft", "pretrain", "align"])
def test_fields_of_one_name_have_one_control(kind):
    """All methods of a tab share it; only its words and choices may differ."""
    made = form.Form("tab", kind)
    for name, specs in made.specs.items():
        for field, spec in specs.items():
            first = made.all[field]
            assert {spec.type, first.type} <= {"str", "choice"} or spec.type == first.type, (name, field)
            assert spec.widget == first.widget and (first.choices or not spec.choices), (name, field)
            assert form.empty_is_default(spec) == form.empty_is_default(first), (name, field)


def test_as_many_steps_as_the_epochs_say_is_an_empty_field_not_a_number():
    spec = _spec("sft", "max_steps")
    assert spec.default == -1 and "-1" not in spec.help + spec.placeholder
    assert form.to_control(spec, -1) == "" and form.from_control(spec, None) == form.from_control(spec, "") == -1
    assert form.to_control(spec, 20) == "20" and form.from_control(spec, "20") == 20 and form.from_control(spec, -1) == -1
    epochs = _spec("sft", "num_train_epochs")
    assert form.from_control(epochs, None) == "", "an empty field without such words is refused, not filled in"


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_every_field_has_a_control_that_keeps_its_default(kind):
    for name in family(kind):
        for spec in fields(family(kind).get(name).Recipe):
            plain = spec.type == "dict" and form.plain_table(kind, name, spec.name)
            assert form.from_control(spec, form.to_control(spec, spec.default, plain), plain) == spec.default


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=6))
def test_table_scalars_round_trip(value):
    spec = _spec("sft", "extra")
    shown = form.to_control(spec, {"x": value})
    assert read_yaml(shown[0][1]) == value
    assert form.from_control(spec, shown) == {"x": value}


def _spec(kind, name):
    method = next(iter(family(kind)))
    return {spec.name: spec for spec in fields(family(kind).get(method).Recipe)}[name]


@pytest.mark.parametrize(("name", "old"), [("num_train_epochs", ""), ("num_train_epochs", "many"), ("max_steps", True),
                                           ("chat_template", "of an older studio")])
def test_a_draft_that_cannot_be_shown_does_not_keep_the_page_from_opening(name, old):
    shown = form.controls_of("sft", "lora", {name: old})[name]
    assert shown in (None, "") or shown == _spec("sft", name).default

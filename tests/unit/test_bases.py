"""An adapter whose base was replaced since it was trained: noticed, and told wherever it is used."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio import api, settings
from studio.chat import client, manager, session
from studio.errors import StudioError
from studio.library import artifacts, bases, refs
from studio.mergers.adapter import MergeAdapter
from tests.models import make_adapter, make_model, tensor_file

RUN = "rtest234567"


def weigh(model: Path, seed: int, name: str = "model.safetensors") -> Path:
    """Give a model other weights: file size and header stay what they are."""
    path = model / name
    tensor_file(path, (512, 1024))
    data = bytearray(path.read_bytes())
    head = 8 + int.from_bytes(data[:8], "little")
    data[head:] = random.Random(seed).randbytes(len(data) - head)
    path.write_bytes(data)
    return model


@pytest.fixture
def base(home: Path) -> Path:
    return weigh(make_model(home / "models/base"), 1)


@pytest.fixture
def adapter(home: Path, base: Path) -> str:
    """Reference of an adapter as a run on ``base`` registers it."""
    run = settings.run_dir(RUN)
    made = make_adapter(run / "output", str(base))
    bases.keep(run, str(base), resumed=False)
    parents = [(str(base), "base")]
    return artifacts.add("adapter", "Polite", made, run_id=RUN, meta=bases.meta(run), made_from=parents)["ref"]


def test_the_same_weights_have_one_fingerprint_wherever_they_lie(base, home):
    copy = shutil.copytree(base, home / "copy")
    os.utime(copy / "model.safetensors", (1, 1))
    assert bases.fingerprint(copy) == bases.fingerprint(base)


@pytest.mark.parametrize("change", ["weights", "header", "another file", "a name"])
def test_other_weights_have_another_fingerprint(base, home, change):
    before = bases.fingerprint(base)
    if change == "weights":
        size = (base / "model.safetensors").stat().st_size
        weigh(base, 2)
        assert (base / "model.safetensors").stat().st_size == size
    elif change == "header":
        tensor_file(base / "model.safetensors", (1024, 512))
    elif change == "another file":
        weigh(base, 3, "more.safetensors")
    else:
        (base / "model.safetensors").rename(base / "weights.safetensors")
    assert bases.fingerprint(base) != before


def test_small_and_torn_files(base, home):
    tensor_file(base / "model.safetensors", (1, 1))
    assert len(bases.fingerprint(base)) == 24
    (base / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(StudioError, match="cannot be read"):
        bases.fingerprint(base)


def test_nothing_is_said_while_the_base_is_what_it_was_or_nobody_knows(adapter, base, home):
    assert bases.replaced_by_ref(adapter) is None
    assert bases.replaced_by_ref(f"run:{RUN}/output") is None
    weigh(base, 2)
    foreign = make_adapter(home / "foreign", str(base))
    assert bases.replaced_by_ref(str(foreign)) is None, "made elsewhere: not known"
    assert bases.replaced_by_ref(str(base)) is None and bases.replaced_by_ref("library:gone") is None
    shutil.rmtree(base)
    assert bases.replaced_by_ref(adapter) is None, "a base that is gone is told when it is loaded"


def test_a_replaced_base_is_told_with_what_to_do(adapter, base):
    weigh(base, 2)
    told = bases.replaced_by_ref(adapter)
    assert told.message == "Polite was made for another version of base."
    assert "replaced since" in told.hint and "Train it again" in told.hint and "old files back" in told.hint
    assert "another version" in bases.replaced_by_ref(f"run:{RUN}/output").message
    weigh(base, 1)
    assert bases.replaced_by_ref(adapter) is None


def test_the_starter_is_called_the_starter(adapter, base, monkeypatch):
    monkeypatch.setattr(settings, "STARTER", base)
    weigh(base, 2)
    run = settings.run_dir(RUN)
    row = artifacts.add("adapter", "Tuned", run / "output", meta=bases.meta(run), made_from=[("starter", "base")])
    told = bases.replaced_by_ref(row["ref"])
    assert told.message == "Tuned was made for another version of the starter."
    assert told.hint.startswith("The starter was replaced since")


def test_an_adapter_trained_further_is_held_to_the_whole_base(adapter, base, home):
    run = settings.run_dir("rfurther2345")
    run.mkdir(parents=True)
    bases.keep(run, adapter, resumed=False)
    assert bases.recorded(run) == bases.fingerprint(base)


def test_a_resumed_run_refuses_another_base(adapter, base):
    run = settings.run_dir(RUN)
    bases.keep(run, str(base), resumed=True)
    weigh(base, 2)
    with pytest.raises(StudioError) as caught:
        bases.keep(run, str(base), resumed=True)
    assert caught.value.field == "model" and "began with" in caught.value.message and caught.value.hint
    assert json.loads((run / bases.FILE).read_text())["fingerprint"] != bases.fingerprint(base)


def test_the_library_tells(adapter, base):
    def warnings() -> dict[str, str]:
        return {model["ref"]: model["warning"] for model in api.models()}

    assert set(warnings().values()) == {""}
    weigh(base, 2)
    assert warnings()[adapter].startswith("Polite was made for another version of base. base was replaced")


def test_a_merge_tells_before_and_in_its_run(adapter, base, monkeypatch):
    recipe = MergeAdapter.Recipe(model=adapter)
    assert not any("another version" in note for note in MergeAdapter.estimate(recipe).notes)
    weigh(base, 2)
    assert "another version" in MergeAdapter.estimate(recipe).notes[0]
    told = []

    def first_progress(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        MergeAdapter.run(recipe, SimpleNamespace(warning=lambda *args: told.append(args), progress=first_progress))
    assert told == [("base-replaced", *bases.replaced_by_ref(adapter))]


def test_every_answer_of_the_chat_tells(adapter, base, monkeypatch):
    def opening(ref, stop):
        return client.Endpoint("http://nowhere", ref, "")
        yield

    monkeypatch.setattr(manager, "opening", opening)
    monkeypatch.setattr(client, "stream", lambda *_: iter([client.Answer(text="Moo.", note="Plain text.")]))

    def note() -> str:
        return list(session.stream(adapter, [{"role": "user", "content": "Hi"}]))[-1]["note"]

    assert note() == "Plain text."
    weigh(base, 2)
    assert note().startswith("Polite was made for another version of base.") and note().endswith(" Plain text.")


def test_hub_bases_are_not_looked_at(home, tmp_path):
    run = settings.run_dir(RUN)
    run.mkdir(parents=True)
    model = refs.ModelRef("library:a", "A", run, base="hub:lab/tiny", is_adapter=True, meta={bases.KEY: "0"})
    assert bases.replaced(model) is None

"""The queue: states, order, atomic claims."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from studio import settings
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.model import ACTIVE, FINAL, RESUMABLE, TRANSITIONS, IllegalTransition, State, check


def test_only_the_documented_transitions_exist():
    allowed = {(a, b) for a, targets in TRANSITIONS.items() for b in targets}
    for old, new in itertools.product(State, State):
        if (old, new) in allowed:
            check(old, new)
        else:
            with pytest.raises(IllegalTransition):
                check(old, new)
    assert all(not TRANSITIONS[s] for s in FINAL - RESUMABLE)
    assert all(TRANSITIONS[s] == {State.QUEUED} for s in RESUMABLE)
    assert all((s, State.QUEUED) not in allowed for s in ACTIVE)


def test_an_illegal_move_changes_nothing(jobs):
    run = jobs.submit()
    with pytest.raises(IllegalTransition):
        store.move(run, "succeeded")
    assert store.get(run)["state"] == "queued"
    assert store.close(run, "failed") is False  # not active: nothing to close


def test_a_submitted_run_has_its_recipe_on_disk(jobs):
    from studio.recipe import load

    run = jobs.submit("fail", name="my run")
    assert load(jobs.dir(run) / "recipe.yaml").to_dict() == store.get(run)["recipe"]
    assert store.get(run)["name"] == "my run" and jobs.states(run) == ["queued"]


def test_claims_follow_the_order_and_reordering_survives(jobs):
    a, b, c = (jobs.submit() for _ in range(3))
    store.reorder(c, before_id=a)
    assert [r["id"] for r in store.queue()] == [c, a, b]
    store.reorder(c)
    store.reorder(b, before_id=a)
    assert [r["id"] for r in store.queue()] == [b, a, c]
    listing = subprocess.run([sys.executable, "-c", "from studio.jobs import store; "
                              "print(*[r['id'] for r in store.queue()])"], capture_output=True, text=True,
                             cwd=settings.ROOT)
    assert listing.stdout.split() == [b, a, c], listing.stderr  # another process, so it is on the disk
    assert [store.claim(9)["id"] for _ in range(3)] == [b, a, c]
    with pytest.raises(StudioError, match="wait in the queue"):
        store.reorder(a)


def test_slots_bound_what_is_active_and_light_work_runs_beside(jobs):
    first, second = jobs.submit(), jobs.submit()
    light, light2, light3 = (jobs.submit(kind="setup") for _ in range(3))
    assert store.claim(1)["id"] == first
    assert [store.claim(1)["id"], store.claim(1)["id"]] == [light, light2]
    assert store.claim(1) is None
    assert store.close(first, "failed") and store.claim(1)["id"] == second
    assert store.close(light, "succeeded") and store.claim(1)["id"] == light3


def test_each_of_several_slots_is_its_own(jobs):
    for _ in range(3):
        jobs.submit()
    a, b = store.claim(2), store.claim(2)
    assert {a["slot"], b["slot"]} == {0, 1} and store.claim(2) is None
    store.close(a["id"], "failed")
    assert store.claim(2)["slot"] == a["slot"]


def test_a_run_of_several_processes_takes_as_many_slots_side_by_side(jobs, monkeypatch):
    wide, narrow, last = jobs.submit(), jobs.submit(), jobs.submit()
    store.note(wide, recipe={"num_processes": 2})
    assert store.claim(3)["slot"] == 0  # the wide one: 0 and 1
    assert store.claim(3)["slot"] == 2 and store.claim(3) is None
    store.close(narrow, "failed")
    assert store.claim(3)["id"] == last
    wider = jobs.submit()
    store.note(wider, recipe={"num_processes": 3})
    behind = jobs.submit()
    store.close(last, "failed")
    assert store.claim(3) is None, "one slot is free, but who stands behind a wide run does not overtake it"
    store.close(wide, "failed")
    assert store.claim(3)["slot"] == 0 and store.claim(3) is None
    store.close(wider, "failed")
    assert store.claim(3)["id"] == behind
    from studio.jobs import supervisor

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    row = {"id": wide, "kind": "sft", "slot": 1, "resume": False, "recipe": {"num_processes": 2}, "backend": None}
    env = supervisor._environment(row, jobs.home / "runs" / wide, 1)
    assert env["CUDA_VISIBLE_DEVICES"] == "5,6"


_HAMMER = """
import sys
from studio.jobs import store
slots, tries = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
print(*[run["id"] for run in (store.claim(slots) for _ in range(tries)) if run])
"""


@pytest.mark.parametrize("slots, expected", [(40, 40), (3, 3)])
def test_eight_processes_never_claim_a_run_twice(jobs, slots, expected):
    for _ in range(40):
        jobs.submit()
    crowd = [subprocess.Popen([sys.executable, "-c", _HAMMER, str(slots), "10"], stdin=subprocess.PIPE, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=settings.ROOT) for _ in range(8)]
    for process in crowd:
        process.stdin.write("go\n")
        process.stdin.flush()
    claimed = []
    for process in crowd:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        claimed += out.split()
    assert len(claimed) == len(set(claimed)) == expected
    assert {run["id"] for run in store.active()} == set(claimed)


def test_resume_puts_the_files_of_the_attempt_aside(jobs):
    run = jobs.submit()
    with pytest.raises(StudioError, match="queued"):
        store.resume(run)
    store.claim(1)
    folder = jobs.dir(run)
    for name in ("exit.json", "result.json", "stop", "guardian.json"):
        (folder / name).write_text("{}")
    store.close(run, "lost", reason="gone", exit_code=3)
    row = store.resume(run)
    assert (row["state"], row["attempt"], row["resume"]) == ("queued", 2, True)
    assert (row["reason"], row["exit_code"]) == ("", None)
    assert not any((folder / name).exists() for name in ("exit.json", "result.json", "stop", "guardian.json"))
    assert (folder / "exit.attempt-1.json").exists() and (folder / "stop.attempt-1").exists()
    store.claim(1)
    store.close(run, "succeeded")
    with pytest.raises(StudioError, match="succeeded"):
        store.resume(run)


def test_remove_refuses_what_is_active_and_bad_ids(jobs):
    run = jobs.submit()
    store.claim(1)
    with pytest.raises(StudioError, match="still going"):
        store.remove(run)
    store.close(run, "failed")
    store.remove(run)
    assert not jobs.dir(run).exists()
    with pytest.raises(StudioError, match="no run"):
        store.get(run)
    with pytest.raises(StudioError, match="not a run id"):
        store.get("../../etc")


def test_a_newer_database_is_refused(home):
    from studio.library.database import reading, writing

    with writing() as db:
        db.exec_driver_sql("INSERT INTO migrations VALUES ('m999_future', 1)")
    code = "from studio.jobs import store; store.find()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.ROOT)
    assert "made by a newer studio" in done.stderr
    with reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 0


def test_a_damaged_database_is_one_clear_error(home):
    (home / "studio.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StudioError, match="cannot be used"):
        store.find()


def test_a_full_disk_at_submission_is_one_clear_error(jobs, monkeypatch):
    import errno
    from pathlib import Path

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StudioError, match="cannot be stored"):
        jobs.submit()
    assert store.find() == [] and list((settings.home() / "runs").iterdir()) == []

"""Hugging Face Jobs: a machine of the Hub, paid by the minute. https://huggingface.co/docs/huggingface_hub/guides/jobs

Files travel through a private model repository of the person's own that is made for the run and removed once everything
is home; events and the worker's words through the job's log. The token travels as a secret of the job and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio import hub
from studio.errors import StudioError
from studio.jobs.backends import FIELD, Place, Unreachable, parcel, posts, tokens
from studio.jobs.backends.desk import NOW, PIECE, STOP

IMAGE = "python:3.11"
HOURS = 1.0
_PRICES_KEPT = 600.0  # seconds
_STATES = {"SCHEDULING": "waiting", "RUNNING": "running", "UPDATING": "running", "COMPLETED": "over",
           "CANCELED": "over", "ERROR": "over", "DELETED": "over"}
_LOG_IN = "Log in with a Hub token that may write repositories and run jobs."
_prices: dict[str, tuple[float, list[dict[str, Any]]]] = {}


class HubJobs(Place):
    name, title = "hf_jobs", "Hugging Face Jobs"
    summary = "A machine of the Hub, paid by the minute by your account. It ends at the time limit at the latest."
    brings_its_parcel = True

    @classmethod
    def offer(cls, token: str | None) -> dict[str, Any]:
        reason, flavors = "", []
        try:
            flavors = hardware(token)
        except StudioError as err:
            reason = f"{err.message} {err.hint}"
        fields = [
            {"name": "flavor", "title": "Machine", "help": "Prices are those the Hub names today.", "type": "choice",
             "default": flavors[0]["name"] if flavors else "", "choices": [[f["name"], f["label"]] for f in flavors]},
            {"name": "hours", "title": "Time limit (hours)", "type": "float", "default": HOURS, "choices": [],
             "help": "The job is ended then, finished or not; checkpoints made before come home."},
            {"name": "image", "title": "Container image", "type": "str", "default": IMAGE, "choices": [],
             "help": f"With Python {sys.version_info.major}.{sys.version_info.minor}; the job installs the libraries."},
            {"name": "keep", "title": "Keep the repository", "type": "bool", "default": False, "choices": [],
             "help": "Leave the private repository of the run on the Hub when everything is home."}]
        return {"unavailable": reason, "install": None, "fields": fields}

    @classmethod
    def check(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        if not token:
            raise StudioError("Nobody is logged in to the Hub.", _LOG_IN, FIELD)
        found = cls._whole(options)
        cost = price(found, token)
        try:
            agreed = float(options.get("agreed") or 0)
        except (TypeError, ValueError):
            agreed = 0.0
        if agreed < cost - 0.005:
            raise StudioError(f"This can cost up to ${cost:.2f}.", "Confirm the price first.", FIELD)
        with hub.explained("your account", FIELD):
            owner = _api(token).whoami()["name"]
        return found | {"agreed": cost, "namespace": owner}

    @classmethod
    def notes(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        found = cls._whole(options)
        return {"cost": price(found, token), "notes": [
            "It is billed by the minute while it starts and runs, to your account; closing this page or this machine does "
            "not end it, the time limit does.", "Installing the libraries takes the job some minutes of that time."]}

    @classmethod
    def _whole(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            hours = float(options.get("hours", HOURS) or 0)
        except (TypeError, ValueError):
            hours = 0.0
        if not 0.05 <= hours <= 168:
            raise StudioError("The time limit is no number of hours between 0.05 and 168.", "Write 1.5, say.", FIELD)
        image, flavor = str(options.get("image") or IMAGE), str(options.get("flavor") or "")
        if not flavor or len(image) > 200 or any(c.isspace() for c in image + flavor):
            raise StudioError("Choose a machine and an image.", f"The usual image is {IMAGE}.", FIELD)
        return {"flavor": flavor, "hours": hours, "image": image, "keep": bool(options.get("keep"))}

    @classmethod
    def label(cls, options: dict[str, Any]) -> str:
        return f"Hugging Face Jobs, {options.get('flavor')}"

    def __init__(self, options: dict[str, Any], record: dict[str, Any]):
        super().__init__(options, record)
        token = tokens.mine()
        if not token:
            raise StudioError("Nobody is logged in to the Hub.", f"{_LOG_IN} Then press Resume.", FIELD)
        self._token, self._api = token, _api(token)

    @property
    def lasting(self) -> bool:
        return True

    def submit(self, job: str, parcel_: Any) -> str:
        from huggingface_hub import CommitOperationAdd

        repo = f"{self.options['namespace']}/{job}"
        with _spoken_to():
            for known in self._api.list_jobs(labels={"atelier": job}, namespace=self.options["namespace"]):
                return known.id  # the courier before us got as far as this
            self._api.create_repo(repo, private=True, exist_ok=True)
            manifest = json.dumps(parcel_.manifest()).encode()
            with tempfile.TemporaryDirectory() as folder:
                files = parcel_.files | {"code.tar.gz": parcel.pack_code(Path(folder) / "code.tar.gz")}
                self._api.create_commit(repo, [CommitOperationAdd("parcel.json", manifest), *(
                    CommitOperationAdd(name, str(path)) for name, path in files.items())],
                    commit_message="What the run needs")
            given = {"via": "hub", "repo": repo, "folder": "..", "packages": parcel.needed(),
                     "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
            env = {"ATELIER_REMOTE": json.dumps(given), "PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            if hub.endpoint() != "https://huggingface.co":
                env["HF_ENDPOINT"] = hub.endpoint()
            made = self._api.run_job(
                image=self.options["image"], command=["bash", "-ec", script(repo)], env=env,
                secrets={"HF_TOKEN": self._token}, flavor=self.options["flavor"], name=job, labels={"atelier": job},
                timeout=int(self.options["hours"] * 3600), namespace=self.options["namespace"])
        return made.id

    def state(self, job: str) -> tuple[str, str]:
        with _spoken_to():
            info = self._api.inspect_job(job_id=job, namespace=self.options["namespace"])
        stage = str(getattr(info.status.stage, "value", info.status.stage))
        return _STATES.get(stage, "waiting"), info.status.message or ""

    def wire(self, job: str) -> Any:
        repo = f"{self.options['namespace']}/{self.record['asked']}"
        return HubWire(self._api, repo, job, self.options["namespace"], lambda: self.state(job)[0] == "over")

    def cancel(self, job: str) -> None:
        with _spoken_to():
            if self.state(job)[0] != "over":
                self._api.cancel_job(job_id=job, namespace=self.options["namespace"])

    def clear(self, job: str) -> None:
        if not self.options["keep"]:
            with _spoken_to():
                self._api.delete_repo(f"{self.options['namespace']}/{self.record['asked']}", missing_ok=True)

    def output(self, job: str) -> str:
        try:
            with _spoken_to():
                lines = self._api.fetch_job_logs(job_id=job, namespace=self.options["namespace"])
                return "\n".join(line.rstrip("\n") for line in lines if not line.startswith(posts.SAYS))
        except (Unreachable, StudioError):
            return ""


class HubWire:
    """What a job says in its log, and its repository; answers as :class:`.desk.Desk` does.

    The log may have gaps; when the job is over, the whole files in the repository fill them.
    """

    def __init__(self, api: Any, repo: str, job: str, namespace: str, over: Callable[[], bool]):
        self._over = over
        self._api, self._repo, self._job, self._namespace = api, repo, job, namespace
        self._grown = {"events.jsonl": b"", "worker.log": b""}
        self._brief: dict[str, Any] | None = None
        self._full: dict[str, Any] = {}
        self._looked = 0.0
        self._ended = self._whole = False
        threading.Thread(target=self._listen, daemon=True).start()

    def status(self) -> dict[str, Any] | None:
        """What the job said last, with the files of what it has sent; ``None`` before its first word."""
        brief = self._brief
        if brief is None and not self._ended:
            return None
        brief = brief or {}
        missing = set(brief.get("checkpoints") or ()) - set(self._full.get("checkpoints") or ())
        if (missing or self._ended or brief.get("phase") == "over") and time.monotonic() - self._looked > 3:
            self._looked = time.monotonic()
            self._full = self._read("status.json") or self._full
        if self._full.get("phase") == "over":
            self._complete()
            return self._full
        if not brief:
            return self._full or None
        sent = {name: files for name, files in (self._full.get("checkpoints") or {}).items()
                if name in brief["checkpoints"]}
        return brief | {"phase": "working" if brief["phase"] == "over" else brief["phase"], "checkpoints": sent}

    def grown(self, name: str, offset: int) -> bytes:
        return self._grown.get(name.rpartition("/")[2], b"")[offset:offset + PIECE]

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file.

        Raises:
            FileNotFoundError: it is not there.
        """
        from huggingface_hub.errors import EntryNotFoundError

        folder = target.parent / ".hub"
        try:
            with _spoken_to(), contextlib.suppress(EntryNotFoundError):
                Path(self._api.hf_hub_download(self._repo, name, local_dir=folder)).replace(target)
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        raise FileNotFoundError(name)

    def say(self, word: str) -> None:
        if word in (STOP, NOW):
            with _spoken_to():
                self._api.upload_file(path_or_fileobj=word.encode(), path_in_repo=word, repo_id=self._repo,
                                      commit_message="A stop was asked for")

    def close(self) -> None:
        """The listening thread ends with the courier."""

    def _listen(self) -> None:
        """Follow the job's log to its end; after a break it comes from its start, and what is known is passed over."""
        seen = 0
        while not self._ended:
            number = 0
            try:
                rest = {"status": "", "event": ""}
                for line in self._api.fetch_job_logs(job_id=self._job, namespace=self._namespace, follow=True):
                    number += 1
                    self._hear(line.rstrip("\r\n"), rest, number > seen)
                    seen = max(seen, number)
                self._ended = self._over()
            except Exception as err:
                print(f"The job's log broke off: {err}", flush=True)
                time.sleep(5)

    def _hear(self, line: str, rest: dict[str, str], fresh: bool) -> None:
        kind, text, more = posts.parse(line)
        if kind:
            rest[kind] = rest.get(kind, "") + text
            if more:
                return
            text, rest[kind] = rest[kind], ""
        if not fresh:
            return
        if kind == "status":
            self._brief = json.loads(text)
        else:
            self._grown["events.jsonl" if kind else "worker.log"] += text.encode() + b"\n"

    def _read(self, name: str) -> dict[str, Any] | None:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FileNotFoundError, ValueError):
            self.fetch(name, Path(folder) / "file")
            return json.loads((Path(folder) / "file").read_bytes())
        return None

    def _complete(self) -> None:
        """Once: behind what the log brought, the lines of the whole files that it did not bring."""
        run = self._full.get("run")
        if not run or self._whole:
            return
        for name in ("events.jsonl", "worker.log"):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FileNotFoundError):
                self.fetch(f"{run}/{name}", Path(folder) / "file")
                whole = (Path(folder) / "file").read_bytes()
                known = self._grown[name]
                have = set(known.splitlines(keepends=True))
                self._grown[name] = whole if whole.startswith(known) else known + b"".join(
                    line for line in whole.splitlines(keepends=True) if line not in have)
        self._whole = True


def script(repo: str) -> str:
    """What the container runs: the parcel and the studio from the repository, its libraries, the other side."""
    from importlib.metadata import version

    fetch = f"from huggingface_hub import snapshot_download as get; get({repo!r}, local_dir='atelier')"
    return "; ".join([
        f"python -m pip install -q --root-user-action ignore huggingface_hub=={version('huggingface_hub')}",
        f"python -c {shlex.quote(fetch)}", "cd atelier; mkdir code; tar -xzf code.tar.gz -C code; cd code",
        "python -m pip install -q --root-user-action ignore -r requirements.txt",
        "exec python -m studio.jobs.backends.other_side"])


def hardware(token: str | None) -> list[dict[str, Any]]:
    """The machines there are, the cheapest first: ``{name, label, hour}``, ``hour`` in dollars, as the Hub says now.

    Raises:
        StudioError: nobody is logged in, or the Hub does not answer.
    """
    if not token:
        raise StudioError("Nobody is logged in to the Hub.", _LOG_IN, FIELD)
    key = f"{hub.endpoint()} {hash(token)}"
    kept = _prices.get(key)
    if kept is None or time.monotonic() - kept[0] > _PRICES_KEPT:
        with hub.explained("the list of machines", FIELD):
            found = _api(token).list_jobs_hardware()
        per_hour = {"minute": 60.0, "hour": 1.0, "second": 3600.0}
        rows = [{"name": one.name, "hour": one.unit_cost_usd * per_hour[one.unit_label], "label": _line(one)}
                for one in found if one.unit_label in per_hour]
        for row in rows:
            row["label"] += f" · ${row['hour']:.2f} an hour"
        kept = _prices[key] = time.monotonic(), sorted(rows, key=lambda row: row["hour"])
    return kept[1]


def _line(one: Any) -> str:
    gpu = f", {one.accelerator.quantity} × {one.accelerator.model} {one.accelerator.vram}" if one.accelerator else ""
    return f"{one.pretty_name} ({one.cpu}, {one.ram}{gpu})"


def price(options: dict[str, Any], token: str | None) -> float:
    """Dollars that a job can cost at most: the machine's price times the time limit.

    Raises:
        StudioError: there is no such machine, or nobody is logged in.
    """
    for one in hardware(token):
        if one["name"] == options["flavor"]:
            return round(one["hour"] * options["hours"], 4)
    raise StudioError(f"The Hub has no machine '{options['flavor']}'.", "Choose one from the list.", FIELD)


def _api(token: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint(), token=token, library_name="atelier")


@contextlib.contextmanager
def _spoken_to() -> Any:
    """Turn what the Hub's client raises into our own two.

    Raises:
        Unreachable: no answer, an error of the server, or too many questions.
        StudioError: it refuses.
    """
    import httpx
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except EntryNotFoundError as err:
        if isinstance(err, LocalEntryNotFoundError):
            raise Unreachable("the Hub does not answer") from err
        raise
    except HfHubHTTPError as err:
        status = err.response.status_code if err.response is not None else 0
        if status in (0, 429) or status >= 500:
            raise Unreachable(f"the Hub answers {status or 'nothing'}") from err
        if status == 402:
            raise StudioError("Your account has no credit for Hugging Face Jobs.",
                              f"Add credit at {hub.endpoint()}/settings/billing, then press Resume.", FIELD) from err
        raise StudioError(f"The Hub refuses ({status}): {str(err).splitlines()[-1][:200]}", _LOG_IN, FIELD) from err
    except (httpx.TransportError, ConnectionError, TimeoutError) as err:
        raise Unreachable(f"the Hub does not answer ({type(err).__name__})") from err

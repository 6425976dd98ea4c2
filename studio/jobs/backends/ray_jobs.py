"""Ray: a job on an existing cluster, through the Ray Jobs API.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/

The code travels as the job's working directory; model, data and results over a small HTTP server that the job opens on
its node (Ray Jobs bring no files home), or over a folder that both sides see.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from studio import extras, settings
from studio.errors import StudioError
from studio.jobs.backends import FIELD, Place, Unreachable, parcel
from studio.jobs.backends.desk import Desk
from studio.jobs.backends.posts import SAYS
from studio.jobs.backends.wires import HttpWire

ADDRESS = "http://127.0.0.1:8265"
KEEP = 6 * 3600.0  # seconds a finished job waits for a courier who does not come
STOP_WAIT = 60  # seconds between Ray's SIGTERM and SIGKILL
_STATES = {"PENDING": "waiting", "RUNNING": "running", "STOPPED": "over", "SUCCEEDED": "over", "FAILED": "over"}
_SPACE = "A Space has no way into a cluster of your own. Use Hugging Face Jobs."
FIELDS = (
    ("address", "Address", "Where the cluster's dashboard answers.", "str", ADDRESS),
    ("cpus", "Processor cores", "Cores the job asks for; so many threads it computes with.", "float", 1.0),
    ("gpus", "GPUs", "GPUs the job asks for. Ray holds them for it until everything is home.", "float", 0.0),
    ("packages", "Libraries", "Where the job finds them.", "choice", "cluster"),
    ("storage", "Shared folder", "A folder that this machine and the cluster both see under this path. Empty: files "
     "travel over the network.", "str", ""),
    ("port", "Port", "Port on the job's machine for those files; 0 takes a free one. Set it if you have to forward it.",
     "int", 0),
)
CHOICES = {"packages": [["cluster", "They are installed on the cluster"], ["pip", "The job installs them (minutes)"]]}


class RayJobs(Place):
    name, title = "ray", "Ray cluster"
    summary = "A job on a Ray cluster that runs already. The address is that of its dashboard."

    @classmethod
    def offer(cls, token: str | None) -> dict[str, Any]:
        away = _SPACE if settings.on_space() else ""
        missing = not extras.installed("ray")
        part = extras.extra("ray")
        fields = [{"name": name, "title": title, "help": text, "type": kind, "default": default,
                   "choices": CHOICES.get(name, [])} for name, title, text, kind, default in FIELDS]
        return {"unavailable": away, "fields": fields,
                "install": {"name": "ray", "title": part.title, "megabytes": part.megabytes} if missing else None}

    @classmethod
    def check(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        if settings.on_space():
            raise StudioError(_SPACE, "Choose another place.", FIELD)
        extras.require("ray", FIELD)
        found: dict[str, Any] = {}
        for name, title, _, kind, default in FIELDS:
            value = options.get(name, default)
            try:
                found[name] = {"int": int, "float": float}.get(kind, str)(value if value != "" else default)
            except (TypeError, ValueError):
                raise StudioError(f"{title}: '{value}' is no number.", "Write a number.", FIELD) from None
        url = urlsplit(found["address"])
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
            raise StudioError("That is not the address of a Ray dashboard.", f"It looks like {ADDRESS}.", FIELD)
        if found["packages"] not in ("cluster", "pip"):
            raise StudioError("Libraries are 'cluster' or 'pip'.", "Choose one.", FIELD)
        if not 0 <= found["cpus"] <= 4096 or not 0 <= found["gpus"] <= 64 or not 0 <= found["port"] < 65536:
            raise StudioError("There cannot be so many cores or GPUs, or such a port.", "Look at the numbers.", FIELD)
        if found["storage"] and not (Path(found["storage"]).is_absolute() and os.access(found["storage"], os.W_OK)):
            raise StudioError(f"{found['storage']} is no folder that can be written from here.",
                              "Give the path of a folder on a disk that both machines see, or leave it empty.", FIELD)
        _answers(found["address"])
        return found

    @classmethod
    def notes(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        notes = []
        if options.get("packages") == "pip":
            notes.append("The first job installs the libraries there, which takes minutes; Ray keeps them.")
        return {"notes": notes, "cost": None}

    @classmethod
    def label(cls, options: dict[str, Any]) -> str:
        return f"Ray cluster at {urlsplit(str(options.get('address'))).netloc or '?'}"

    def __init__(self, options: dict[str, Any], record: dict[str, Any]):
        super().__init__(options, record)
        self._made: Any = None

    @property
    def lasting(self) -> bool:
        return bool(self.options["storage"])

    def submit(self, job: str, parcel_: Any) -> str:
        given = {"via": "folder" if self.options["storage"] else "http", "token": self.record["token"],
                 "port": self.options["port"], "keep": KEEP, "threads": max(1, int(self.options["cpus"])),
                 "python": f"{sys.version_info.major}.{sys.version_info.minor}", "packages": parcel.needed()}
        if self.options["storage"]:
            given["folder"] = str(Path(self.options["storage"]) / job)
        env = {"working_dir": "", "env_vars": {"ATELIER_REMOTE": json.dumps(given),
                                               "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT)}}
        if self.options["packages"] == "pip":
            env["pip"] = str(settings.ROOT / "requirements.txt")
        client = self._client()
        with tempfile.TemporaryDirectory(prefix="atelier-code-") as folder, _spoken_to(self.options["address"]):
            for name, path in parcel.code().items():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            env["working_dir"] = folder
            if self._info(client, job) is not None:
                return job  # the courier before us got as far as this
            return client.submit_job(
                entrypoint="python -m studio.jobs.backends.other_side", submission_id=job, runtime_env=env,
                metadata={"name": job}, entrypoint_num_cpus=self.options["cpus"] or None,
                entrypoint_num_gpus=self.options["gpus"] or None)

    def state(self, job: str) -> tuple[str, str]:
        info = self._info(self._client(), job)
        if info is None:
            return "unknown", "the cluster does not know this job (any more)"
        return _STATES.get(str(getattr(info.status, "value", info.status)), "waiting"), info.message or ""

    def wire(self, job: str) -> Any:
        if self.options["storage"]:
            return Desk(Path(self.options["storage"]) / job)
        port = next((json.loads(line[len(SAYS):])["port"] for line in self.output(job).splitlines()
                     if line.startswith(SAYS)), None)
        if port is None:
            raise Unreachable("the job has not opened its port yet")
        tried = []
        for host in self._hosts(job):
            wire = HttpWire(f"http://{f'[{host}]' if ':' in host else host}:{port}", self.record["token"])
            try:
                wire.status()
                return wire
            except Unreachable:
                wire.close()
                tried.append(f"{host}:{port}")
        raise Unreachable(f"{' and '.join(tried)} cannot be reached from here")

    def _hosts(self, job: str) -> list[str]:
        """Names under which the job's machine may be reached: Ray's own, and the dashboard's (a forwarded port)."""
        info = self._info(self._client(), job)
        node = urlsplit(getattr(info, "driver_agent_http_address", None) or "").hostname
        return list(dict.fromkeys(filter(None, (node, urlsplit(self.options["address"]).hostname))))

    def cancel(self, job: str) -> None:
        client = self._client()
        with _spoken_to(self.options["address"]):
            if (info := self._info(client, job)) is not None and not info.status.is_terminal():
                client.stop_job(job)

    def clear(self, job: str) -> None:
        if self.options["storage"]:
            shutil.rmtree(Path(self.options["storage"]) / job, ignore_errors=True)

    def output(self, job: str) -> str:
        try:
            with _spoken_to(self.options["address"]):
                return self._client().get_job_logs(job)
        except (Unreachable, StudioError):
            return ""

    def _info(self, client: Any, job: str) -> Any:
        with _spoken_to(self.options["address"]):
            try:
                return client.get_job_info(job)
            except RuntimeError as err:
                if "404" in str(err):
                    return None
                raise

    def _client(self) -> Any:
        if self._made is None:
            with _spoken_to(self.options["address"]):
                from ray.job_submission import JobSubmissionClient

                self._made = JobSubmissionClient(self.options["address"])
        return self._made


@contextmanager
def _spoken_to(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into our own two: it is away, or it refuses.

    Raises:
        Unreachable: no connection, or a time-out, or an error of the server.
        StudioError: anything else it says.
    """
    import requests

    try:
        yield
    except (requests.RequestException, ConnectionError, TimeoutError) as err:
        raise Unreachable(f"no Ray dashboard answers at {address}: {type(err).__name__} {str(err)[:200]}") from err
    except RuntimeError as err:
        text = str(err)
        if "status code 5" in text or "timed out" in text:
            raise Unreachable(text.splitlines()[0][:200]) from err
        raise StudioError(f"Ray refuses: {text.splitlines()[0][:300]}", "Look at the cluster's dashboard.",
                          FIELD) from err


def _answers(address: str) -> None:
    """Refuse an address where no Ray dashboard answers; quick and without the ray package.

    Raises:
        StudioError: saying what answered instead.
    """
    import httpx

    try:
        answer = httpx.get(f"{address.rstrip('/')}/api/version", timeout=4)
        answer.raise_for_status()
        answer.json()["ray_version"]
    except httpx.TransportError as err:
        raise StudioError(f"No Ray cluster answers at {address} ({type(err).__name__}).",
                          "Start one with 'ray start --head', or check the address and any tunnel to it.",
                          FIELD) from err
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as err:
        raise StudioError(f"What answers at {address} is no Ray dashboard.",
                          "Its address usually ends in :8265.", FIELD) from err

"""A stand-in of Hugging Face Jobs, on top of the Hub's: a job really runs, as a process of this machine, with the environment
and secrets that were asked for, a log that is followed, a cancel and a time limit."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_stand_in import TOKEN, Hub, _Handler

ROOT = Path(__file__).resolve().parent.parent
HARDWARE = [
    {"name": "t4-small", "prettyName": "Nvidia T4 - small", "cpu": "4 vCPU", "ram": "15 GB", "ephemeralStorage": "50 GB",
     "accelerator": {"type": "gpu", "model": "T4", "quantity": "1", "vram": "16 GB", "manufacturer": "Nvidia"},
     "unitCostMicroUSD": 6667, "unitCostUSD": 0.006667, "unitLabel": "minute"},
    {"name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB", "ephemeralStorage": "50 GB",
     "accelerator": None, "unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute"}]


class Job:
    """One job: a process with a folder of its own."""

    def __init__(self, spec: dict[str, Any], hold: bool):
        self.id, self.spec, self.stage, self.message = secrets.token_hex(12), spec, "SCHEDULING", None
        self.folder = Path(tempfile.mkdtemp(prefix="hf-job-"))
        self.lines: list[str] = ["===== Job started ====="]
        self.process: subprocess.Popen | None = None
        if not hold:
            threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        # The image: the tests' own environment. Its pip only looks, for that environment is shared.
        env = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder), "LANG": "C.UTF-8",
               "PYTHONPATH": str(ROOT), "ATELIER_PLUGINS": "tests.jobs.fake:register", "PIP_DRY_RUN": "1",
               "HF_HUB_DISABLE_XET": "1",
               "OMP_NUM_THREADS": "1", **self.spec["environment"], **self.spec.get("secrets", {})}
        self.process = subprocess.Popen(self.spec["command"], env=env, cwd=self.folder, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.stage = "RUNNING"
        limit = threading.Timer(self.spec.get("timeoutSeconds", 1800), self.end, ("ERROR", "Job timeout"))
        limit.start()
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        code = self.process.wait()
        limit.cancel()
        if self.stage == "RUNNING":
            self.stage, self.message = ("COMPLETED", None) if code == 0 else ("ERROR", f"Exit code {code}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self, stage: str, message: str | None = None) -> None:
        if self.stage in ("SCHEDULING", "RUNNING"):
            self.stage, self.message = stage, message
            if self.process:
                os.killpg(self.process.pid, signal.SIGKILL)

    def info(self) -> dict[str, Any]:
        shown = {key: self.spec.get(key) for key in ("command", "arguments", "environment", "flavor", "labels", "dockerImage")}
        return shown | {"id": self.id, "createdAt": "2026-03-01T12:00:00.000Z", "secrets": list(self.spec.get("secrets") or {}),
                        "owner": {"id": "1", "name": "ann", "type": "user"},
                        "status": {"stage": self.stage, "message": self.message}}


class _JobsHandler(_Handler):
    hub: JobsHub

    def route(self, verb: str) -> None:
        parts = urlsplit(self.path)
        match = re.fullmatch(r"/api/jobs/(hardware|ann)(?:/([0-9a-f]+))?(?:/(logs|cancel))?", unquote(parts.path))
        if not match:
            return super().route(verb)
        data = self.body()
        self.hub.requests.append(f"{verb} {parts.path}")
        if self.hub.fail_with:
            return self.refuse(self.hub.fail_with)
        if match[1] == "hardware":
            return self.send(HARDWARE)
        if self.token != TOKEN:
            return self.refuse(401, message="Invalid credentials")
        if not match[2]:
            if verb == "POST":
                job = Job(json.loads(data), self.hub.hold)
                self.hub.jobs[job.id] = job
                return self.send(job.info())
            wanted = [label.partition("=")[::2] for label in parse_qs(parts.query).get("label", [])]
            return self.send([job.info() for job in self.hub.jobs.values()
                              if all(job.spec.get("labels", {}).get(key) == value for key, value in wanted)])
        job = self.hub.jobs.get(match[2])
        if job is None:
            return self.refuse(404, message="There is no such job")
        if match[3] == "cancel":
            job.end("CANCELED")
            return self.send({})
        return self.logs(job) if match[3] == "logs" else self.send(job.info())

    def logs(self, job: Job) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection, sent = True, 0
        try:
            while True:
                over = job.stage not in ("SCHEDULING", "RUNNING")
                for line in job.lines[sent:]:
                    self.wfile.write(f"data: {json.dumps({'timestamp': '2026', 'data': line})}\n\n".encode())
                    sent += 1
                self.wfile.flush()
                if over and sent == len(job.lines):
                    return
                time.sleep(0.1)
        except OSError:
            return


class JobsHub(Hub):
    """The Hub with its jobs; ``hold`` leaves new ones in the Hub's own queue."""

    handler = _JobsHandler

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.hold = False

    def __exit__(self, *rest: Any) -> None:
        for job in self.jobs.values():
            job.end("CANCELED")
        super().__exit__(*rest)

"""A Ray cluster of one small node on free ports, with a folder of its own, as ``ray start --head`` makes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


class Cluster:
    """``start()`` until the dashboard answers at ``address``; ``stop()`` ends every process of it, and no other."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a short path: Ray puts sockets in it
        self.gcs, self.dashboard = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"

    def start(self) -> None:
        # What runs on the cluster finds the tests' fake method; of the studio's own workspace it must know nothing.
        # A node that misses a few health checks on a busy machine is no dead one, and memory is other tests' affair.
        env = {key: value for key, value in os.environ.items() if not key.startswith(("STUDIO_", "RAY_"))} | {
            "PYTHONPATH": str(ROOT), "ATELIER_PLUGINS": "tests.jobs.fake:register", "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "OMP_NUM_THREADS": "1",
            "RAY_health_check_failure_threshold": "100", "RAY_health_check_timeout_ms": "60000",
            "RAY_agent_register_timeout_ms": "300000", "RAY_raylet_start_wait_time_s": "200",
            "RAY_memory_monitor_refresh_ms": "0",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
        with open(self.folder / "head.log", "wb") as log:  # not --block: that ends all when one helper is slow to start
            subprocess.run(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={self.gcs}",
                 f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1",
                 f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
                 f"--temp-dir={self.folder}", "--num-cpus=4", "--num-gpus=0", "--object-store-memory=80000000",
                 "--disable-usage-stats"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=self.folder,
                timeout=240, check=True)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/nodes?view=summary",
                                                                      timeout=5) as answer:
                if b'"ALIVE"' in answer.read():
                    return
            time.sleep(0.3)
        raise AssertionError("no Ray dashboard:\n" + (self.folder / "head.log").read_text())

    def kill(self) -> None:
        """Every process at once, as when the machine is switched off."""
        doomed: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and str(self.folder) in " ".join(process.cmdline()):
                    doomed |= {process, *process.children(recursive=True)}
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(doomed, timeout=10)

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

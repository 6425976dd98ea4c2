"""The courier's way to a desk over HTTP. On a disk that both sides see it is a :class:`.desk.Desk` itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from studio.jobs.backends import Unreachable
from studio.jobs.backends.desk import PIECE
from studio.jobs.backends.posts import HEADER


class HttpWire:
    """Speaks to :class:`.posts.Served`.

    Raises:
        Unreachable: from every call, when there is no answer.
    """

    def __init__(self, url: str, token: str):
        self.url = url
        self._client = httpx.Client(base_url=url, headers={HEADER: token}, trust_env=False,
                                    timeout=httpx.Timeout(120, connect=5))

    def status(self) -> dict[str, Any] | None:
        """As :meth:`.desk.Desk.status`."""
        return self._ask("GET", "/status").json()

    def say(self, word: str) -> None:
        self._ask("POST", "/say", params={"word": word})

    def grown(self, name: str, offset: int) -> bytes:
        answer = self._ask("GET", "/file", params={"name": name, "offset": offset}, missing=True)
        return answer.content if answer is not None else b""

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file, going on where an earlier try ended.

        Raises:
            FileNotFoundError: it is gone.
        """
        with open(target, "ab") as file:
            while True:
                answer = self._ask("GET", "/file", params={"name": name, "offset": file.tell()}, missing=True)
                if answer is None:
                    raise FileNotFoundError(name)
                file.write(answer.content)
                if len(answer.content) < PIECE:
                    return

    def put(self, name: str, source: Path) -> None:
        def pieces() -> Any:
            with open(source, "rb") as file:
                while piece := file.read(PIECE):
                    yield piece

        self._ask("PUT", "/file", params={"name": name}, content=pieces(),
                  headers={"Content-Length": str(source.stat().st_size)})

    def write(self, name: str, value: dict[str, Any]) -> None:
        self._ask("PUT", "/file", params={"name": name}, content=json.dumps(value).encode())

    def close(self) -> None:
        self._client.close()

    def _ask(self, verb: str, path: str, missing: bool = False, **more: Any) -> Any:
        try:
            answer = self._client.request(verb, path, **more)
        except httpx.HTTPError as err:
            raise Unreachable(f"{self.url} does not answer ({type(err).__name__})") from err
        if missing and answer.status_code == 404:
            return None
        if answer.status_code == 507:
            raise OSError(f"the other machine cannot store it: {answer.text}")
        if answer.is_error:
            raise Unreachable(f"{self.url} answers {answer.status_code}")
        return answer

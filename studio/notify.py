"""Telling somebody when a run ends: a webhook, an e-mail. Sent by a process of its own, so that nothing waits for it.

The settings lie in ``notify.json`` of the workspace, readable by its owner only, because a webhook's address is often a secret
itself; they are in no recipe, log or event. The password of the mail server is never stored here: it comes from the
environment (``ATELIER_SMTP_PASSWORD``) or the keyring. On a Space, which many people share, there are webhooks
only, to public addresses by https only: anything else would let a visitor knock at doors inside, or use the password
of the Space's owner.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from studio import settings
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.jobs.model import LIGHT_KINDS

TIMEOUT = 10.0  # seconds for each of: connecting, one answer
PASSWORD = "ATELIER_SMTP_PASSWORD"
_ADDRESS = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[?[0-9a-fA-F:.]+\]?")
_MAIL = {"to": "", "host": "", "port": 587, "user": "", "starttls": True}
_FINALS = {"succeeded": "is done", "failed": "failed", "stopped": "was stopped", "lost": "was lost"}

_log = logging.getLogger(__name__)
_senders: list[subprocess.Popen] = []


def _path() -> Path:
    return settings.home() / "notify.json"


@contextmanager
def _locked() -> Iterator[None]:
    with open(_path().with_suffix(".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def load(owner: str | None = None) -> dict[str, Any]:
    """``{webhook, to, host, port, user, starttls}`` of a person; empty strings where nothing is set."""
    held = (read_json(_path()) or {}).get(owner or "", {})
    return {"webhook": ""} | _MAIL | {key: value for key, value in held.items() if key in _MAIL or key == "webhook"}


def shown(owner: str | None = None) -> dict[str, Any]:
    """The settings as the page may show them: of the webhook only the host, of the password only whether there is one.

    Returns:
        ``{webhook, to, host, port, user, starttls, mail, password}``; ``mail``: e-mail can be set here at all.
    """
    held = load(owner)
    address = urlsplit(held["webhook"])
    held["webhook"] = f"{address.scheme}://{address.hostname}/…" if held["webhook"] else ""
    return held | {"mail": not settings.on_space(), "password": bool(_password(held["host"], held["user"]))}


def save(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Keep new settings; returns them as :func:`shown` does.

    Args:
        values: Some of ``webhook`` (empty: none any more), ``to``, ``host``, ``port``, ``user``, ``starttls``. What is not
            named stays.

    Raises:
        StudioError: an address that cannot be used, or a disk that cannot be written.
    """
    with _locked():
        new = load(owner) | {key: value for key, value in values.items() if key in _MAIL or key == "webhook"}
        checked = {"webhook": _webhook(str(new["webhook"] or "").strip()), **_mail(new)}
        everybody = (read_json(_path()) or {}) | {owner or "": checked}
        try:
            _path().touch(mode=0o600)
            old = os.umask(0o077)
            try:
                write_json(_path(), everybody)
            finally:
                os.umask(old)
        except OSError as err:
            raise StudioError(f"The settings could not be written: {err.strerror}.", "Free some disk space.") from err
    return shown(owner)


def _webhook(address: str) -> str:
    if not address:
        return ""
    parts, public = urlsplit(address), settings.on_space()
    if parts.scheme not in (("https",) if public else ("https", "http")) or not parts.hostname or len(address) > 2000 \
            or re.search(r"[\s\x00-\x1f]", address):
        raise StudioError("That is not an address that can be called.",
                          "It starts with https:// and comes from the service that shall be told.", "webhook")
    if parts.username or parts.password:
        raise StudioError("An address with a name and password in it is not taken.",
                          "Use a webhook whose secret is in its path.", "webhook")
    if public:
        _resolved(parts.hostname, parts.port or 443, "webhook")
    return address


def _mail(values: dict[str, Any]) -> dict[str, Any]:
    made = {key: values[key] for key in _MAIL}
    made |= {key: str(made[key] or "").strip() for key in ("to", "host", "user")} | {"starttls": bool(made["starttls"])}
    if not made["to"] and not made["host"]:
        return dict(_MAIL)
    if settings.on_space():
        raise StudioError("On a Space there are webhooks only.", "Use a webhook; many services turn it into a mail.", "to")
    if not _ADDRESS.fullmatch(made["to"]):
        raise StudioError("That is not an e-mail address.", "Write one address, such as you@example.org.", "to")
    if not _HOST.fullmatch(made["host"]):
        raise StudioError("That is not the name of a mail server.", "Such as smtp.example.org.", "host")
    try:
        made["port"] = int(made["port"])
    except (TypeError, ValueError):
        made["port"] = 0
    if not 1 <= made["port"] <= 65535:
        raise StudioError("That is not a port.", "587 is usual with STARTTLS, 465 with TLS from the start.", "port")
    return made


def _password(host: str, user: str) -> str:
    """The mail server's password from the environment or the keyring; empty where there is none."""
    if (found := os.environ.get(PASSWORD)) or not user:
        return found or ""
    try:
        import keyring

        return keyring.get_password(f"atelier-smtp:{host}", user) or ""
    except Exception:  # no keyring service on this machine is the usual case on servers
        return ""


def _resolved(host: str, port: int, field: str | None = None) -> str:
    """One numeric address of a host; on a Space every one of them must be public.

    Raises:
        StudioError: there is none, or one inside.
    """
    try:
        found = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as err:
        raise StudioError(f"{host} was not found.", "Check the spelling and the network.", field) from err
    if settings.on_space() and not all(ipaddress.ip_address(one.partition("%")[0]).is_global for one in found):
        raise StudioError(f"{host} is not a public address.", "On a Space only public addresses can be told.", field)
    return str(found[0])


def _connect(address: tuple[str, int], timeout: float = TIMEOUT, *_: Any, **__: Any) -> socket.socket:
    """A connection to the very address that was looked at: a name could mean another one a moment later."""
    host, port = address
    return socket.create_connection((_resolved(host, port), port), TIMEOUT)


def post(address: str, message: dict[str, Any]) -> None:
    """Send JSON to a webhook. Redirects are not followed.

    Raises:
        StudioError: it cannot be reached or refuses. The address itself is never part of the words.
    """
    import http.client
    import ssl

    parts = urlsplit(address)
    secure = parts.scheme == "https"
    made = (http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT,
                                        context=ssl.create_default_context()) if secure
            else http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT))
    made._create_connection = _connect  # type: ignore[attr-defined]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        made.request("POST", path, json.dumps(message).encode(), {"Content-Type": "application/json",
                                                                  "User-Agent": "Atelier"})
        status = made.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise StudioError(f"The webhook at {parts.hostname} cannot be reached: {type(err).__name__}.",
                          "Check its address and the network.", "webhook") from err
    finally:
        made.close()
    if status >= 300:
        raise StudioError(f"The webhook at {parts.hostname} answered {status}.", "Check its address.", "webhook")


def mail(held: dict[str, Any], subject: str, text: str) -> None:
    """Send an e-mail by the person's mail server; TLS from the start on port 465, else STARTTLS where it is asked for.

    Raises:
        StudioError: the server cannot be reached, or refuses.
    """
    import smtplib
    import ssl
    from email.message import EmailMessage

    class Plain(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            return _connect((host, port))

    class Secure(smtplib.SMTP_SSL):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            return self.context.wrap_socket(_connect((host, port)), server_hostname=self._host)

    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["From"] = held["user"] if _ADDRESS.fullmatch(held["user"]) else held["to"]
    message["To"] = held["to"]
    message.set_content(text)
    tls = ssl.create_default_context()
    password = _password(held["host"], held["user"])
    try:
        server: smtplib.SMTP = (Secure(held["host"], held["port"], timeout=TIMEOUT, context=tls) if held["port"] == 465
                                else Plain(held["host"], held["port"], timeout=TIMEOUT))
        with server:
            if held["starttls"] and held["port"] != 465:
                server.starttls(context=tls)
            elif held["port"] != 465 and password:
                raise StudioError("The password is not sent over an unprotected connection.", "Turn STARTTLS on.",
                                  "starttls")
            if held["user"] and password:
                server.login(held["user"], password)
            server.send_message(message)
    except smtplib.SMTPAuthenticationError as err:
        raise StudioError("The mail server refuses the name or the password.",
                          f"The password comes from the environment variable {PASSWORD} or the keyring.", "user") from err
    except (OSError, smtplib.SMTPException) as err:
        raise StudioError(f"The mail server {held['host']} did not take the mail: {type(err).__name__}.",
                          "Check host, port and STARTTLS.", "host") from err


def told(run: dict[str, Any]) -> bool:
    """This run's end is worth a message: it computed, and was not part of another run."""
    return run["kind"] not in LIGHT_KINDS and not run.get("parent")


def message(run: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """(subject, what a webhook is sent) for a run that is over; ``text`` and ``content`` are what chat services show."""
    words = f"{name} {_FINALS.get(run['state'], run['state'])}"
    summary = {key: value for key, value in (run.get("summary") or {}).items() if isinstance(value, int | float)}
    lines = [words + ".", *filter(None, [run.get("reason"), run.get("hint")])]
    if run["state"] == "succeeded" and summary.get("eval_loss") is not None:
        lines.append(f"Validation loss {summary['eval_loss']:.4f}.")
    seconds = (run["ended"] or 0) - (run["started"] or run["ended"] or 0)
    text = "\n".join(lines)
    return f"Atelier: {words}", {"text": text, "content": text, "run": run["id"], "name": name, "kind": run["kind"],
                                 "method": run["method"], "state": run["state"], "reason": run.get("reason") or "",
                                 "seconds": round(seconds, 1), "summary": summary}


def later(run: dict[str, Any]) -> None:
    """Have a run's end told by a process of its own, once. Returns at once; does nothing where nobody asked for it."""
    _senders[:] = [child for child in _senders if child.poll() is None]
    held = load(run.get("owner"))
    if not told(run) or not (held["webhook"] or held["to"]):
        return
    path = os.pathsep.join(filter(None, [str(settings.ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"STUDIO_HOME": str(settings.home()), "PYTHONPATH": path}
    _senders.append(subprocess.Popen([sys.executable, "-m", "studio.notify", run["id"]], env=env, cwd=settings.home(),
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     start_new_session=True))


def send(run_id: str) -> list[str]:
    """Tell of one end of a run, once however often it is called; returns what went wrong, in words without secrets."""
    from studio import api
    from studio.jobs import store

    run = store.get(run_id)
    if run["state"] not in _FINALS:
        return []  # resumed meanwhile
    try:
        with open(settings.run_dir(run_id) / f"told.attempt-{run['attempt']}", "x"):
            pass
    except OSError:
        return []
    subject, body = message(run, api.run(run_id)["label"])
    return _both(load(run.get("owner")), subject, body)


def test(owner: str | None = None) -> dict[str, Any]:
    """Send a test message by every way that is set.

    Returns:
        ``{"sent": [ways]}``.

    Raises:
        StudioError: nothing is set, or one way fails.
    """
    held = load(owner)
    ways = [name for name, there in (("webhook", held["webhook"]), ("email", held["to"])) if there]
    if not ways:
        raise StudioError("Nothing is set yet.", "Fill in a webhook or an e-mail address first.")
    text = "This is a test. From here on you are told when a run ends."
    if troubles := _both(held, "Atelier: a test", {"text": text, "content": text, "run": None, "state": "test"}):
        raise StudioError(" ".join(troubles), "Nothing else was changed.")
    return {"sent": ways}


def _both(held: dict[str, Any], subject: str, body: dict[str, Any]) -> list[str]:
    troubles = []
    for there, way in ((held["webhook"], lambda: post(held["webhook"], body)),
                       (held["to"] and not settings.on_space(), lambda: mail(held, subject, body["text"]))):
        try:
            if there:
                way()
        except StudioError as err:
            troubles.append(f"{err.message} {err.hint}")
    return troubles


def main() -> int:
    logging.basicConfig(filename=settings.home() / "guardian.log", level=logging.WARNING,
                        format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    for attempt in range(2):
        try:
            for trouble in send(sys.argv[1]):
                _log.warning("%s: %s", sys.argv[1], trouble)
            return 0
        except StudioError:
            return 0  # the run was removed meanwhile
        except Exception:
            _log.exception("telling of %s", sys.argv[1])
            time.sleep(1 + attempt)  # a database that was busy
    return 1


if __name__ == "__main__":
    sys.exit(main())

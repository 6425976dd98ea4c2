"""Models that are somewhere else: ``http(s)://host/v1`` or ``http(s)://host/v1#model-name``.

Keys come from the environment (``ATELIER_KEY_<HOST>``) or the system's keyring (service ``atelier``, user name the
host), and are never part of a reference, because references are stored in chats.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

from studio import settings
from studio.chat.client import Endpoint, models
from studio.errors import StudioError


def is_address(ref: str) -> bool:
    return ref.strip().lower().startswith(("http://", "https://"))


def key_name(url: str) -> str:
    """Environment variable that holds the key of a server: ``ATELIER_KEY_API_EXAMPLE_COM``."""
    return "ATELIER_KEY_" + re.sub(r"[^A-Z0-9]+", "_", (urlsplit(url).hostname or "").upper())


def key_of(url: str) -> str:
    """The key for a server, or nothing. A key is only ever given to the host that it is named after."""
    host = urlsplit(url).hostname or ""
    if key := os.environ.get(key_name(url)):
        return key
    if host == "api.openai.com" and (key := os.environ.get("OPENAI_API_KEY")):
        return key
    try:
        import keyring

        return keyring.get_password("atelier", host) or ""
    except Exception:  # keyrings fail in many ways where there is no desktop; then there is no key
        return ""


def label(ref: str) -> str:
    """``host · model``, short enough for a column's head."""
    parts = urlsplit(ref)
    return " · ".join(filter(None, [parts.netloc, parts.fragment]))


def checked(ref: str) -> tuple[str, str]:
    """(base URL, model name or nothing) of an address, without asking anybody.

    Raises:
        StudioError: not an address, or a secret in it.
    """
    try:
        parts = urlsplit(ref.strip())
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise StudioError(f"'{ref}' is not an address.", "Write it as http://host:port/v1", "model") from err
    if not host:
        raise StudioError(f"'{ref}' is not an address.", "Write it as http://host:port/v1", "model")
    if parts.username or parts.password or parts.query:
        raise StudioError("An address must not hold a key or a password: it is stored with the chat.",
                          f"Put the key in the environment as {key_name(ref)}.", "model")
    path = parts.path.rstrip("/")
    path = path.removesuffix("/chat/completions")
    url = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{path or '/v1'}"
    return url, parts.fragment


def endpoint(ref: str) -> Endpoint:
    """The server behind an address; without ``#model`` the first model it serves.

    Raises:
        StudioError: not an address, a secret in it, not there, or not allowed from a public Space.
    """
    url, model = checked(ref)
    if settings.on_space():
        _only_public(urlsplit(url).hostname or "")
    made = Endpoint(url, model, key_of(url), remote=True)
    if not made.model:
        names = models(made)
        if not names:
            raise StudioError(f"{url} serves no model.", "Name one behind the address: http://host/v1#model", "model")
        made = Endpoint(url, names[0], made.key, remote=True)
    return made


def _only_public(host: str) -> None:
    """A visitor of a Space must not reach what only the Space's own network can see."""
    try:
        found = {item[4][0] for item in socket.getaddrinfo(host, None)}
    except OSError as err:
        raise StudioError(f"There is no host {host}.", "Check the address.", "model") from err
    if not all(ipaddress.ip_address(ip.partition("%")[0]).is_global for ip in found):
        raise StudioError(f"{host} is not a public address.", "On a Space, only public servers can be asked.", "model")

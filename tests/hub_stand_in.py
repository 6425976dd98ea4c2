"""A small stand-in of the Hub on loopback: as much of its HTTP API as the studio uses.

Search, facts, gates, file trees, downloads, and publishing (create, preupload, LFS, commit). What is pushed can be
looked at in ``repos`` and downloaded again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_standin"
READ_ONLY = "hf_readonly"


@functools.lru_cache(maxsize=4096)
def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@dataclass
class Repo:
    """One repository; ``gated`` and ``private`` as the Hub reports them."""

    id: str
    kind: str = "model"
    files: dict[str, bytes] = field(default_factory=dict)
    gated: Any = False
    private: bool = False
    downloads: int = 0
    card: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    messages: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted((n, _sha1(d)) for n, d in dict(self.files).items())).encode()).hexdigest()

    def info(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "_id": self.id, "id": self.id, "private": self.private, "gated": self.gated, "downloads": self.downloads,
            "likes": 3, "tags": [f"license:{self.card['license']}"] if "license" in self.card else [], "sha": self.sha,
            "lastModified": "2026-03-01T12:00:00.000Z", "cardData": self.card, "usedStorage": sum(map(len, self.files.values())),
            "siblings": [{"rfilename": n, "size": len(d), "blobId": _sha1(d)} for n, d in self.files.items()]}
        if self.config:
            made["config"] = self.config
        if self.parameters:
            made["safetensors"] = {"parameters": {"BF16": self.parameters}, "total": self.parameters}
        return made


class Hub:
    """The server; use it as a context manager. ``requests`` lists ``"METHOD path"`` of what was asked."""

    handler: type[BaseHTTPRequestHandler]

    def __init__(self, *repos: Repo):
        self.repos = {(repo.kind, repo.id): repo for repo in repos}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail_with: int | None = None
        self.created: list[dict[str, Any]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (self.handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def do_DELETE(self) -> None:
        self.route("DELETE")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send({"error": message or code}, status, {"X-Error-Code": code, "X-Error-Message": message or code})

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def route(self, verb: str) -> None:
        data = self.body()
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.hub.requests.append(f"{verb} {path}")
        if self.hub.fail_with:
            return self.refuse(self.hub.fail_with)
        if path == "/api/whoami-v2":
            return self.send({"name": "ann", "type": "user", "orgs": [{"name": "lab"}]}) if self.token in (TOKEN, READ_ONLY) \
                else self.refuse(401, message="Invalid credentials in Authorization header")
        if path in ("/api/models", "/api/datasets"):
            return self.search(path[5:-1], query)
        if path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(data))
        if path == "/api/repos/delete":
            return self.delete(json.loads(data))
        if verb == "PUT" and path.startswith("/lfs/"):
            self.hub.blobs[path[5:]] = data
            return self.send({}, headers={"ETag": '"x"'})
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self.batch(json.loads(data))
        if match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.*))?", path):
            return self.repo(match[1], match[2], match[3] or "", data)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(self.find("dataset" if match[1] else "model", match[2]), match[4])
        return self.refuse(404, message=f"stand-in has no {verb} {path}")

    def search(self, kind: str, query: dict[str, str]) -> None:
        found = [r for r in self.hub.repos.values() if r.kind == kind and query.get("search", "").lower() in r.id.lower()
                 and not r.private]
        found.sort(key=lambda r: -r.downloads)
        self.send([r.info() for r in found][: int(query.get("limit", 100))])

    def find(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and self.token not in (TOKEN, READ_ONLY)):
            self.refuse(401 if not self.token else 404, "RepoNotFound", "Repository not found")
            return None
        return repo

    def repo(self, kind: str, name: str, rest: str, data: bytes) -> None:
        repo = self.find(kind, name)
        if repo is None:
            return None
        word, _, tail = rest.partition("/")
        if word == "auth-check":
            if repo.gated and self.token != TOKEN:
                return self.refuse(403 if self.token else 401, "GatedRepo", "Access to this repository is restricted.")
            return self.send({})
        if word in ("", "revision"):
            if tail not in ("", "main", repo.sha):
                return self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return self.send(repo.info())
        if word == "tree":
            return self.send([{"type": "file", "path": n, "size": len(d), "oid": _sha1(d)}
                              for n, d in repo.files.items()])
        if self.token == READ_ONLY:
            return self.refuse(403, message="Forbidden: you need write access")
        if word == "preupload":
            asked = json.loads(data)["files"]
            return self.send({"files": [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".parquet")) else "regular",
                                         "shouldIgnore": False, "oid": None} for f in asked]})
        if word == "commit":
            return self.commit(repo, data)
        return self.refuse(404, message=f"stand-in has no {rest}")

    def create(self, asked: dict[str, Any]) -> None:
        if self.token != TOKEN:
            return self.refuse(403 if self.token else 401, message="You need write access")
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        self.hub.created.append(asked)
        kind = asked.get("type") or "model"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repos:
            return self.send({"error": f"You already created this {kind} repo", "url": url}, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[kind, name] = Repo(name, kind, private=private)
        return self.send({"url": url, "name": name, "id": name})

    def delete(self, asked: dict[str, Any]) -> None:
        if self.token != TOKEN:
            return self.refuse(403 if self.token else 401, message="You need write access")
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if self.hub.repos.pop((asked.get("type") or "model", name), None) is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        return self.send({})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            made = {"oid": item["oid"], "size": item["size"], "authenticated": True}
            if item["oid"] not in self.hub.blobs:
                made["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}
            objects.append(made)
        self.send({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"})

    def commit(self, repo: Repo, data: bytes) -> None:
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repo.messages.append(value["summary"])
            elif entry["key"] == "deletedFile":
                del repo.files[value["path"]]
            elif entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if hashlib.sha256(self.hub.blobs[value["oid"]]).hexdigest() != value["oid"]:
                    return self.refuse(400, message="content does not match its hash")
                repo.files[value["path"]] = self.hub.blobs[value["oid"]]
        return self.send({"success": True, "commitOid": repo.sha, "commitUrl": f"{self.hub.url}/{repo.id}/commit/{repo.sha}",
                          "hookOutput": ""})

    def file(self, repo: Repo | None, name: str) -> None:
        if repo is None:
            return None
        if repo.gated and self.token != TOKEN:
            return self.refuse(403 if self.token else 401, "GatedRepo", "Access to this repository is restricted.")
        if name not in repo.files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = repo.files[name]
        head = {"ETag": f'"{_sha1(data)}"', "X-Repo-Commit": repo.sha, "Content-Type": "application/octet-stream"}
        return self.send(data, headers=head)


Hub.handler = _Handler

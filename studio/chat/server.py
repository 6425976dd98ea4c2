"""The engine's HTTP side: the OpenAI chat API on loopback, behind a key."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.chat.parts import Splitter, for_template
from studio.chat.writing import MOST_TOP, Result, Sampling
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.chat.host import Host

MAX_PARALLEL = 16
_DELTA = {"text": "content", "reasoning": "reasoning_content", "call": "tool_calls"}
PING_SECONDS = 1.0  # a comment line while nothing comes, so that the reader knows that the engine lives
log = logging.getLogger("studio.chat")


class _Refused(Exception):
    """No key, or a wrong one."""


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: str = Field(pattern="^(system|developer|user|assistant|tool)$")
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    def plain(self, sees: bool = False) -> dict[str, Any]:
        """As a host takes it: text, or with ``sees`` its parts where an image is among them."""
        parts = self.content if isinstance(self.content, list) else [{"type": "text", "text": self.content or ""}]
        role = "system" if self.role == "developer" else self.role
        more = {key: value for key in ("tool_calls", "tool_call_id", "name", "reasoning_content")
                if (value := getattr(self, key))}
        if any(part.get("type") not in ("text", "refusal") for part in parts):
            if not sees:
                raise StudioError("This model reads text only.", "Leave images and sounds out, or choose a model that sees.",
                                  "messages")
            return for_template({"role": role, "content": parts, **more})
        return for_template({"role": role, "content": "".join(str(part.get("text", "")) for part in parts), **more})


class StreamOptions(BaseModel):
    include_usage: bool = True


class ChatRequest(BaseModel):
    """The part of OpenAI's request that a local model can honour, with vLLM's names for the other samplers."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    model: str = ""
    messages: list[Message] = Field(min_length=1, max_length=2000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=1)
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=100_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=5)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model may call; a call cannot be forced, so ``required`` is taken as ``auto``."""
        if self.tool_choice == "none":
            return []
        only = (self.tool_choice.get("function") or {}).get("name") if isinstance(self.tool_choice, dict) else None
        found = [tool for tool in self.tools or [] if only is None or _name(tool) == only]
        if not all(map(_name, found)):
            raise StudioError("A tool has no name.", "Send {\"type\": \"function\", \"function\": {\"name\": …}}.", "tools")
        return found

    def sampling(self) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty,
                        self.max_completion_tokens or self.max_tokens, self.seed, stop[:16],
                        (self.top_logprobs or 0) if self.logprobs else None)


def _name(tool: dict[str, Any]) -> str:
    function = tool.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


class Engine:
    """What the endpoints share: the host, who is being served, and when that last happened.

    Args:
        serves: The only name that others may ask for: of an adapter of the host, or any for the base.
    """

    def __init__(self, host: Host, base: str, key: str, serves: str = ""):
        self.host, self.base, self.key, self.serves = host, base, key, serves
        self.active = 0
        self.last_used = time.monotonic()
        self.threads = ThreadPoolExecutor(MAX_PARALLEL, "generate")
        self.loading = asyncio.Lock()

    @property
    def sees(self) -> bool:
        return getattr(self.host, "sees", False)

    def idle_seconds(self) -> float:
        return 0.0 if self.active else time.monotonic() - self.last_used


def build(engine: Engine) -> FastAPI:
    """The application; every path wants ``Authorization: Bearer KEY``."""
    async def locked(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), engine.key.encode()):
            raise _Refused

    app = FastAPI(title="Atelier chat engine", docs_url=None, redoc_url=None, openapi_url=None,
                  dependencies=[Depends(locked)])

    @app.exception_handler(_Refused)
    async def refused(request: Request, err: Exception) -> Response:
        return _error(401, StudioError("This engine needs its key.", "Send it as 'Authorization: Bearer …'."))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        host = engine.host
        return {"status": "ok", "pid": os.getpid(), "base": engine.base, "adapters": host.adapters(),
                "active": engine.active, "idle_seconds": round(engine.idle_seconds(), 1), "rss_bytes": rss_bytes(),
                "device": host.device, "dtype": str(host.dtype).removeprefix("torch."), "context": host.context,
                "threads": host.threads, "chat_template": host.templated}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = [engine.serves] if engine.serves else [engine.base, *engine.host.adapters()]
        about = {"object": "model", "created": 0, "owned_by": "atelier"}
        return {"object": "list", "data": [{"id": name} | about for name in names]}

    @app.post("/v1/adapters")
    async def adapters(request: Request) -> Response:
        body = await _json(request)
        name, path = body.get("name"), body.get("path")
        if engine.serves:
            return _error(404, StudioError("This server serves one model alone.", "Load adapters in the studio.", "model"))
        if not (isinstance(name, str) and isinstance(path, str) and name and os.path.isdir(path)):
            return _error(400, StudioError("An adapter needs a name and a folder.",
                                           "Send {\"name\": …, \"path\": …}."))
        engine.last_used = time.monotonic()
        try:
            async with engine.loading:
                await asyncio.get_running_loop().run_in_executor(engine.threads, engine.host.add_adapter, name, path)
        except StudioError as err:
            return _error(400, err)
        log.info("adapter %s from %s", name, path)
        return JSONResponse({"id": name, "object": "model"})

    async def lab(request: Request, kind: str, more: Callable[[dict[str, Any]], tuple]) -> Response:
        """What looks into the model: ``host.KIND(messages, …)``."""
        try:
            body = await _json(request)
            name = _which(engine, str(body.get("model") or ""))
            messages = [Message.model_validate(one).plain() for one in body.get("messages") or []]
            if not hasattr(engine.host, kind):
                raise StudioError("A GGUF file cannot be looked into token by token.",
                                  "Choose the model that it was made from.", "model")
            engine.active += 1
            try:
                return JSONResponse(await asyncio.to_thread(getattr(engine.host, kind), messages, *more(body), name))
            finally:
                engine.active -= 1
                engine.last_used = time.monotonic()
        except (ValidationError, TypeError, ValueError) as err:
            return _error(400, StudioError(f"The request cannot be read: {err}", "Send messages and settings."))
        except StudioError as err:
            return _error(404 if err.field == "model" else 400, err)

    @app.post("/v1/lab/decode")
    async def decode(request: Request) -> Response:
        return await lab(request, "explore", lambda body: (body.get("way") or {}, [int(t) for t in body.get("prefix") or []]))

    @app.post("/v1/lab/speculative")
    async def speculative(request: Request) -> Response:
        return await lab(request, "speculate", lambda body: (body.get("settings") or {}, str(body.get("assistant") or "")))

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        try:
            asked = ChatRequest.model_validate(await _json(request))
            name = _which(engine, asked.model)
            messages = [m.plain(engine.sees) for m in asked.messages]
            tools = asked.offered()
            if engine.active >= MAX_PARALLEL:
                return _error(429, StudioError(f"{MAX_PARALLEL} answers are being written already.",
                                               "Try again soon."))
            ids, note = await asyncio.to_thread(engine.host.encode, messages, name, tools)
            inside = await asyncio.to_thread(engine.host.thinks, ids)
        except ValidationError as err:
            first = err.errors()[0]
            where = ".".join(str(p) for p in first["loc"]) or "request"
            return _error(400, StudioError(f"{where}: {first['msg']}.", "", where.split(".")[0]))
        except StudioError as err:
            return _error(404 if err.field == "model" else 400, err)
        job = _Job(engine, asked, name, ids, note, Splitter(list(map(_name, tools)), inside))
        if asked.stream:
            return StreamingResponse(job.stream(request), media_type="text/event-stream",
                                     headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        return await job.whole(request)

    return app


class _Job:
    """One generation: it runs in a thread and its text arrives in the event loop."""

    def __init__(self, engine: Engine, asked: ChatRequest, name: str | None, ids: list[int], note: str, parts: Splitter):
        self.engine, self.asked, self.name, self.ids, self.note, self.parts = engine, asked, name, ids, note, parts
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex[:20]}", int(time.time())
        self.cancelled = threading.Event()
        self.queue: asyncio.Queue[str | Result | Exception] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        engine.active += 1
        engine.threads.submit(self._run)

    def _run(self) -> None:
        try:
            last: Any = self.engine.host.generate(self.ids, self.asked.sampling(), self._put, self.cancelled,
                                                  self.name, self.note)
        except Exception as err:  # told to the asker; the engine goes on
            log.exception("generation failed")
            last = err
        self.loop.call_soon_threadsafe(self._finished, last)

    def _put(self, item: Any) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, item)

    def _finished(self, last: Any) -> None:
        self.engine.active -= 1
        self.engine.last_used = time.monotonic()
        self.queue.put_nowait(last)

    async def _items(self, request: Request) -> AsyncIterator[str | Result | Exception | None]:
        """What arrives; ``None`` each second of silence. A client that has gone ends the generation."""
        looked = time.monotonic()
        try:
            while True:
                try:
                    item = await asyncio.wait_for(self.queue.get(), PING_SECONDS)
                except TimeoutError:
                    item = None
                if item is None or time.monotonic() - looked > PING_SECONDS:
                    looked = time.monotonic()
                    if await request.is_disconnected():
                        return
                yield item
                if isinstance(item, (Result, Exception)):
                    return
        finally:
            self.cancelled.set()

    def _envelope(self, kind: str, choice: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.asked.model or self.engine.base,
                "choices": [{"index": 0, **choice}], **more}

    async def stream(self, request: Request) -> AsyncIterator[str]:
        def line(delta: dict[str, Any], finish: str | None = None, told: dict | None = None, **more: Any) -> str:
            choice = {"delta": delta, "finish_reason": finish} | ({"logprobs": told} if told else {})
            data = self._envelope("chat.completion.chunk", choice, **more)
            return f"data: {json.dumps(data)}\n\n"

        def lines(parts: list[tuple[str, Any]]) -> str:
            return "".join(line({_DELTA[kind]: [what] if kind == "call" else what}) for kind, what in parts)

        yield line({"role": "assistant", "content": ""})
        async for item in self._items(request):
            if item is None:
                yield ": working\n\n"
            elif isinstance(item, str):
                yield lines(self.parts.feed(item))
            elif isinstance(item, Result):
                yield lines(self.parts.finish())
                yield line({}, self._finish(item), self._logprobs(item), **self._report(item))
                yield "data: [DONE]\n\n"
            else:
                yield f"data: {json.dumps(_body(_failure(item)))}\n\n"

    async def whole(self, request: Request) -> Response:
        made: list[tuple[str, Any]] = []
        async for item in self._items(request):
            if isinstance(item, str):
                made += self.parts.feed(item)
            elif isinstance(item, Result):
                made += self.parts.finish()
                texts = {kind: "".join(what for which, what in made if which == kind) for kind in ("text", "reasoning")}
                message: dict[str, Any] = {"role": "assistant", "content": texts["text"]}
                if texts["reasoning"]:
                    message["reasoning_content"] = texts["reasoning"]
                if self.parts.calls:
                    message["tool_calls"] = self.parts.calls
                choice = {"message": message, "logprobs": self._logprobs(item), "finish_reason": self._finish(item)}
                return JSONResponse(self._envelope("chat.completion", choice, **self._report(item)))
            elif item is not None:
                return _error(400 if isinstance(item, StudioError) and item.field else 500, _failure(item))
        return Response(status_code=499)

    def _finish(self, result: Result) -> str:
        return "tool_calls" if self.parts.calls else "length" if result.finish == "length" else "stop"

    def _report(self, result: Result) -> dict[str, Any]:
        report: dict[str, Any] = {
            "usage": {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens,
                      "total_tokens": result.prompt_tokens + result.completion_tokens},
            "timings": {"ttft_seconds": result.ttft, "seconds": result.seconds,
                        "tokens_per_second": result.tokens_per_second}}
        return report | ({"note": result.note} if result.note else {})

    def _logprobs(self, result: Result) -> dict[str, Any] | None:
        def one(token: int, logprob: float) -> dict[str, Any]:
            text = self.engine.host.piece(token, self.name)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        if result.logprobs is None:
            return None
        return {"content": [one(token["id"], token["logprob"]) | {"top_logprobs": [one(*pair) for pair in token["top"]]}
                            for token in result.logprobs]}


def _which(engine: Engine, model: str) -> str | None:
    """Adapter name, or ``None`` for the base."""
    if engine.serves:
        if model not in ("", engine.serves):
            raise StudioError(f"This server does not serve '{model}'.", f"It serves {engine.serves}.", "model")
        return engine.serves if engine.serves in engine.host.adapters() else None
    if model in ("", engine.base):
        return None
    if model in engine.host.adapters():
        return model
    known = ", ".join([engine.base, *engine.host.adapters()])
    raise StudioError(f"This engine does not serve '{model}'.", f"It serves {known}.", "model")


def _failure(err: Exception) -> StudioError:
    if isinstance(err, StudioError):
        return err
    if "out of memory" in str(err).lower() or isinstance(err, MemoryError):
        return StudioError("There was not enough memory to answer.",
                           "Shorten the conversation or unload other models.")
    return StudioError(f"The model failed while answering: {type(err).__name__}: {err}", "See the engine's log.")


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as err:
        raise StudioError("The request is not JSON.", "Send an OpenAI chat request.", "request") from err
    if not isinstance(body, dict):
        raise StudioError("The request is not a JSON object.", "Send an OpenAI chat request.", "request")
    return body


def _body(err: StudioError, status: int = 500) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": err.message, "hint": err.hint, "type": kind, "param": err.field, "code": status}}


def _error(status: int, err: StudioError) -> Response:
    return JSONResponse(_body(err, status), status)


def rss_bytes() -> int:
    """Memory of this process that is in RAM."""
    import psutil

    return psutil.Process().memory_info().rss

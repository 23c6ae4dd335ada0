"""An OpenAI-compatible model on loopback that says what a script tells it to.

`python -m tests.jobs.model_server` runs one that plays any persona, and prints its address.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from anyio.abc import SocketStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

LONGEST_HEAD = 64 * 1024
# How the prompt of a registered persona says who it is, and how that of a core persona does.
NAME = re.compile(r"^(?:Name:|You are) (.+?)(?: of this project\b.*|[.,].*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools", [])]


@dataclass(frozen=True)
class Says:
    """A streamed text.

    Attributes:
        chunks: texts; an event in between is waited for, and a number is a pause in seconds.
        usage: tokens in and out; `None` for a server that does not say.
        finish: `None` for a server that closes in the middle, as if nothing were wrong.
        torn: whether the connection breaks after the last chunk.
    """

    chunks: Iterable[str | anyio.Event | float]
    usage: tuple[int, int] | None = (100, 20)
    finish: str | None = "stop"
    torn: bool = False
    refusal: str | None = None
    thought: Sequence[str] = ()


@dataclass(frozen=True)
class Calls:
    """Calls of tools at once: names with their arguments, as JSON where they are texts.

    Attributes:
        hidden: how many of its tokens were thoughts that it does not show.
    """

    calls: Sequence[tuple[str, Mapping[str, Any] | str]]
    first: str = ""
    usage: tuple[int, int] | None = (100, 20)
    hidden: int = 0


@dataclass(frozen=True)
class Answers:
    """An answer that is no stream."""

    status: int
    body: str = '{"error": {"message": "No."}}'
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: str = "application/json"


@dataclass(frozen=True)
class Silence:
    """The connection stays open, and nothing comes."""


Reply = Says | Calls | Answers | Silence
Script = Callable[[Request], Reply]


@dataclass
class ModelServer:
    """A running server.

    Attributes:
        left: set when a client went away before it had its answer.
        chunks_sent: of texts, in all.
    """

    script: Script
    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    asked: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    chunks_sent: int = 0

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            self.url = f"http://127.0.0.1:{port}/v1"
            task_status.started()
            await listener.serve(self._answer)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
                request = await _read(stream)
                self.requests.append(request)
                self.asked.set()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._notice, stream, tasks.cancel_scope)
                    await self._reply(stream, self.script(request))
                    tasks.cancel_scope.cancel()

    async def _notice(self, stream: SocketStream, scope: anyio.CancelScope) -> None:
        """Wait for the client to go away; it says nothing more."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        self.left.set()
        scope.cancel()

    async def _reply(self, stream: SocketStream, reply: Reply) -> None:
        match reply:
            case Silence():
                await anyio.sleep_forever()
            case Answers():
                await stream.send(_head(reply.status, reply.kind, reply.headers, len(reply.body)))
                await stream.send(reply.body.encode())
            case Calls():
                await _begin(stream)
                if reply.first:
                    await _event(stream, {"content": reply.first})
                for delta in _called(reply.calls):
                    await _event(stream, {"tool_calls": [delta]})
                await _end(stream, "tool_calls", reply.usage, reply.hidden)
            case Says():
                await _begin(stream)
                await self._say(stream, reply)

    async def _say(self, stream: SocketStream, reply: Says) -> None:
        for piece in reply.thought:
            await _event(stream, {"reasoning_content": piece})
        if reply.refusal:
            await _event(stream, {"refusal": reply.refusal})
        for chunk in reply.chunks:
            match chunk:
                case str():
                    await _event(stream, {"content": chunk})
                    self.chunks_sent += 1
                case anyio.Event():
                    await chunk.wait()
                case _:
                    await anyio.sleep(chunk)
        if not reply.torn:
            await _end(stream, reply.finish, reply.usage)


@asynccontextmanager
async def serving_model(script: Script | Sequence[Reply]) -> AsyncGenerator[ModelServer]:
    """Serve what a function makes of each request, or one reply after the other."""
    server = ModelServer(script if callable(script) else _in_turn(script))
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.serve)
        yield server
        tasks.cancel_scope.cancel()


def _in_turn(replies: Sequence[Reply]) -> Script:
    rest = iter(replies)
    return lambda _: next(rest, Answers(500, '{"error": {"message": "The script is over."}}'))


async def _read(stream: SocketStream) -> Request:
    buffered = BufferedByteReceiveStream(stream)
    head = (await buffered.receive_until(b"\r\n\r\n", LONGEST_HEAD)).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await buffered.receive_exactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body or b"{}"))


def _head(status: int, kind: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    return f"{start}{more}{size}\r\n\r\n".encode("latin-1")


async def _begin(stream: SocketStream) -> None:
    await stream.send(_head(200, "text/event-stream", {}))
    await _event(stream, {"role": "assistant"})


async def _event(stream: SocketStream, delta: Mapping[str, Any], finish: str | None = None) -> None:
    await _chunk(stream, choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


async def _end(
    stream: SocketStream, finish: str | None, usage: tuple[int, int] | None, hidden: int = 0
) -> None:
    if finish:
        await _event(stream, {}, finish)
        if usage:
            names = ("prompt_tokens", "completion_tokens", "total_tokens")
            counted = dict(zip(names, (*usage, sum(usage)), strict=True))
            details = {"completion_tokens_details": {"reasoning_tokens": hidden}}
            await _chunk(stream, choices=[], usage=counted | details)
        await _send(stream, "data: [DONE]\n\n")
    await stream.send(b"0\r\n\r\n")


async def _chunk(stream: SocketStream, **fields: Any) -> None:
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 0, "model": "played"}
    await _send(stream, f"data: {json.dumps(said | fields)}\n\n")


async def _send(stream: SocketStream, text: str) -> None:
    data = text.encode()
    await stream.send(b"%x\r\n%s\r\n" % (len(data), data))


def _called(calls: Sequence[tuple[str, Mapping[str, Any] | str]]) -> Iterator[dict[str, Any]]:
    """Say each call in two pieces: who, and then with what."""
    for at, (name, values) in enumerate(calls):
        text = values if isinstance(values, str) else json.dumps(values)
        who = {"name": name, "arguments": ""}
        yield {"index": at, "id": f"call_{at}", "type": "function", "function": who}
        yield {"index": at, "function": {"arguments": text}}


def any_persona(request: Request, *, pause_s: float) -> Reply:
    """Play a persona: look at the standards if there are any, then review slowly."""
    found = [m["content"] for m in request.messages if m["role"] == "tool"]
    task = next(m["content"] for m in request.messages if m["role"] == "user")
    if "search_standards" in request.tools and not found:
        return Calls([("search_standards", {"queries": [" ".join(task.split()[:12])]})])
    words = _review(_who(request), found).split(" ")
    size = max(1, len(words) // 30)
    parts = [" ".join(words[at : at + size]) for at in range(0, len(words), size)]
    return Says([piece for part in parts for piece in (f"{part} ", pause_s)])


def _who(request: Request) -> str:
    prompt = next((m["content"] for m in request.messages if m["role"] == "system"), "")
    named = NAME.search(prompt)
    return named[1] if named else "a persona"


def _review(who: str, found: Sequence[str]) -> str:
    quote = " ".join(" ".join(found).split())[:300] or "none were found"
    return (
        f"## Review\n\nI answer as: {who}. I am played by a test model, so nobody thought about"
        " this.\n\n**What I looked at.** The task as it was given, and the standards of this"
        f" project, which say:\n\n> {quote}\n\n**What I would check first.** Whether errors are"
        " handled where something can be done about them, whether limits are written down, and"
        " whether the tests would notice if this broke.\n\n**Verdict.** Configure a real model to"
        " get one."
    )


async def main() -> None:
    async with serving_model(partial(any_persona, pause_s=0.05)) as server:
        print(server.url, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(main)

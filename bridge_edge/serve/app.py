"""The routes, what is refused before any work, and how it ends: see the package's docstring.

Who may ask: on loopback everybody on this machine, but not a web page that another host's name was pointed here for
(the Host header must be a name of loopback); with a token whoever sends it. A first Ctrl-C or SIGTERM ends it: nothing
new is taken, what is being answered has `GRACE` seconds.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import web

from bridge_edge.errors import UserError, first_line
from bridge_edge.progress import say
from bridge_edge.serve import wire
from bridge_edge.serve.desk import Desk, Full, Job
from bridge_edge.serve.wire import BUSY, CONTEXT, Answer, ChatBody, CompletionBody, error, read
from bridge_edge.student import Reply, Student

MOST_BODY, BODY_SECONDS, GRACE = 512 * 1024, 30, 5
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Door:
    """Where the server listens, who may come in and how many may wait."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    waiting: int = 32

    def __post_init__(self) -> None:
        if not self.token and not local(self.host):
            raise UserError(
                f"--host {self.host} can be reached from other machines", "add --token, or leave --host out"
            )
        if self.token is not None and (not self.token.isascii() or not self.token.strip()):
            raise UserError("--token is empty or holds characters that a header cannot carry", "use ASCII characters")


def local(host: str) -> bool:
    """Whether a name is one of loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Server:
    """The handlers of one student."""

    def __init__(self, student: Student, name: str, door: Door) -> None:
        self.student, self.name, self.door = student, name, door
        self.desk: Desk | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY, middlewares=[self.guard])
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{name}", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completions)
        app.on_startup.append(self.open)
        app.on_cleanup.append(self.close)
        return app

    async def open(self, _: web.Application) -> None:
        self.desk = Desk(self.door.waiting)

    async def close(self, _: web.Application) -> None:
        if self.desk:
            await self.desk.close()
        self.student.close()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets in without the token, and every refusal is an object as the API words it."""
        try:
            self.check(request)
            return await handler(request)
        except web.HTTPException as refused:
            headers = {k: v for k, v in refused.headers.items() if k in ("Allow", "WWW-Authenticate")}
            return web.json_response(error(refused.text or refused.reason), status=refused.status, headers=headers)
        except Full as full:
            headers = {"Retry-After": str(full.seconds)}
            return web.json_response(error(str(full), BUSY), status=429, headers=headers)
        except UserError as wrong:
            code = {"code": CONTEXT} if "context" in wrong.message else {}
            return web.json_response(error(str(wrong), **code), status=400)
        except (TimeoutError, ConnectionError) as late:
            return web.json_response(error(f"the body did not arrive: {first_line(late)}"), status=408)
        except Exception as broken:
            say(f"error: {type(broken).__name__}: {first_line(broken)}")
            return web.json_response(error("the server failed on this request"), status=500)

    def check(self, request: web.Request) -> None:
        if request.path == "/health":
            return
        if self.door.token:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode("utf-8", "replace")
            if not hmac.compare_digest(given, self.door.token.encode()):
                raise web.HTTPUnauthorized(
                    text="a wrong or missing token: send it as 'Authorization: Bearer TOKEN'",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        elif not local(request.host.rpartition(":")[0] or request.host) and not local(request.host):
            raise web.HTTPForbidden(text=f"{request.host!r} is no name of this machine's loopback")

    async def health(self, _: web.Request) -> web.Response:
        desk = self.desk
        return web.json_response({"status": "ok", "held": desk.held if desk else 0})

    async def models(self, request: web.Request) -> web.Response:
        about = {"id": self.name, "object": "model", "created": 0, "owned_by": "bridge-edge"}
        if "name" in request.match_info:
            self.known(request.match_info["name"])
            return web.json_response(about)
        return web.json_response({"object": "list", "data": [about]})

    def known(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise web.HTTPNotFound(text=f"there is no model {name[:80]!r} here; it is called {self.name!r}")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, ChatBody)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, CompletionBody)

    async def answer(self, request: web.Request, kind: type[ChatBody] | type[CompletionBody]) -> web.StreamResponse:
        """Read, queue, reply: in one object, or piece by piece."""
        if request.content_type != "application/json":  # what a page of another site may send unasked is no JSON
            raise web.HTTPUnsupportedMediaType(text="send the body as application/json")
        body = read(kind, await asyncio.wait_for(request.read(), BODY_SECONDS))
        self.known(body.model)
        assert self.desk is not None
        job = self.desk.admit(lambda: body.writing(self.student), body.stops)
        made = Answer(kind is ChatBody, self.name)
        if body.stream:
            return await self.stream(request, job, made, body.usage_wanted)
        text = ""
        async with aclosing(job.events()) as events:
            async for event in events:
                if isinstance(event, Reply):
                    return web.json_response(made.whole(text, event))
                text += event
        raise web.HTTPServiceUnavailable(text="the server is stopping")

    async def stream(self, request: web.Request, job: Job, made: Answer, usage: bool) -> web.StreamResponse:
        """The status waits for the first event, as a prompt may turn out to be too long for the model."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            async with aclosing(job.events()) as events:
                async for event in events:
                    first = not response.prepared
                    if first:
                        await response.prepare(request)
                    if isinstance(event, str):
                        await response.write(made.piece(event, first))
                        continue
                    await response.write(made.piece(first=first, reply=event))
                    if usage:
                        await response.write(made.usage(event))
        except (UserError, RuntimeError) as wrong:
            if not response.prepared:
                raise
            await response.write(wire.event(error(first_line(wrong))))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def serve(student: Student, name: str, door: Door) -> None:
    """Answer until a signal; the line that says where is on stderr once it listens."""
    try:
        listening = socket.create_server((door.host, door.port), family=_family(door.host))
    except OSError as problem:
        raise UserError(
            f"cannot listen on {door.host}:{door.port}: {problem.strerror or problem}", "choose another --port"
        ) from None
    port = listening.getsockname()[1]
    at = f"http://{f'[{door.host}]' if ':' in door.host else door.host}:{port}/v1"

    def started(_: str) -> None:
        say(f"{name} ({student.runtime.name}) at {at}; Ctrl-C ends")

    web.run_app(
        Server(student, name, door).app(),
        sock=listening,
        print=started,
        access_log=None,
        shutdown_timeout=GRACE,
        handler_cancellation=True,
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

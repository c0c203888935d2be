"""The way of one request to an endpoint and back, beneath the official client: aiohttp in the place of its transport.

The client's usual transport takes as much processor time as everything above it together, and waits for a reply without
end as long as a byte comes now and then. Here each reply is read whole, bounded in time and size, headers included.
Connections, TLS and proxies are aiohttp's. The client above knows no difference: errors are its library's own, so that
what was surely never sent can be told from what may have been billed.

Not covered: HTTP/2, streaming, SOCKS proxies.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2  # what the official client is built on
import openai

from bridge_edge.errors import UserError

DRIP = 10  # a reply that comes in pieces may take so many times the timeout in all
MOST_BYTES = 16 << 20  # of a reply
HEADER_BYTES = 1 << 16  # of a line of a reply's head
BODY_BYTES = 1 << 20  # a longer one is sent in pieces
PACKED_BYTES = 64 << 10  # of a compressed reply, since it may unfold a thousandfold
IDLE_S = 4.0  # many servers close a connection after five; a request that crosses its end counts as billed


class TooMuch(httpx2.ReadError):
    """A reply beyond the bounds on its size."""


class _Unsent(aiohttp.ClientError):
    """No connection was made, so nothing was sent on it."""


class _Connector(aiohttp.TCPConnector):
    """One that says when it made no connection, and uses none again on which the server said what nobody asked."""

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        while True:
            try:
                made = await super().connect(req, traces, timeout)
            except Exception as error:  # of DNS, TCP, TLS or a proxy; later ones may look the same and be billed
                raise _Unsent(type(error).__name__) from error
            if made.protocol is None or not made.protocol.should_close:
                return made
            made.close()


class Wire(httpx2.AsyncBaseTransport):
    """Connections to one address; a call takes one that is free or opens another. For the tasks of one event loop."""

    def __init__(self, base_url: str, timeout_s: float, most_bytes: int = MOST_BYTES) -> None:
        secure = urlsplit(base_url).scheme == "https"
        self._tls = httpx2.create_ssl_context() if secure else None
        proxy, login = _proxy(base_url)
        # A proxy reads its own headers from the request itself, unless the request goes through a tunnel.
        self._proxy: dict[str, Any] = {"proxy": proxy, "proxy_headers": login if secure else None}
        self._login = [] if secure else list(login.items())
        self._timeout = aiohttp.ClientTimeout(total=DRIP * timeout_s, connect=timeout_s, sock_read=timeout_s)
        self._most = most_bytes
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}  # that of a parent is left open

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop = asyncio.get_running_loop()
        if (session := self._sessions.get(loop)) is None:
            session = self._sessions[loop] = self._open()
        body = await request.aread()
        try:
            async with session.request(
                request.method,
                str(request.url),
                headers=self._login + [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers.raw],
                data=io.BytesIO(body) if len(body) > BODY_BYTES else body,
                allow_redirects=False,
                **self._proxy,
            ) as reply:
                content = await self._read(reply)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise _named(error) from error
        if reply.headers.get("content-encoding") and len(content) > PACKED_BYTES:
            raise TooMuch("the compressed reply is too long")
        return httpx2.Response(reply.status, headers=list(reply.headers.items()), content=content)

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for piece in reply.content.iter_any():
            content += piece
            if len(content) > self._most:
                raise TooMuch("the reply is too long")
        return bytes(content)

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=IDLE_S, ssl=True if self._tls is None else self._tls),
            timeout=self._timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )

    async def aclose(self) -> None:
        if (session := self._sessions.pop(asyncio.get_running_loop(), None)) is not None:
            await session.close()


def _named(error: Exception) -> httpx2.HTTPError:
    """What went wrong as the error of the client's library for it."""
    if isinstance(error, httpx2.HTTPError):
        return error
    if isinstance(error, _Unsent):
        slow = isinstance(error.__cause__, TimeoutError)
        return (httpx2.ConnectTimeout if slow else httpx2.ConnectError)("no connection")
    if isinstance(error, TimeoutError):
        return httpx2.ReadTimeout("timed out")
    return httpx2.ReadError(type(error).__name__)


def _proxy(base_url: str) -> tuple[str | None, dict[str, str]]:
    """The proxy that the environment names for this address, if it names one, and the headers that it asks for."""
    url, proxies = urlsplit(base_url), getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return None, {}
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no proxy of a kind that can be used")
    user, _, address = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    login = {"Proxy-Authorization": aiohttp.encode_basic_auth(unquote(name), unquote(password))} if user else {}
    return f"{parts.scheme}://{address}", login


class _Client(openai.DefaultAsyncHttpxClient):
    """The library's client, which builds the same request over and over: address and time limits are kept."""

    _known: tuple[str, httpx2.URL, dict[str, Any]] | None = None

    def build_request(self, method: str, url: Any, *, content: Any = None, **more: Any) -> httpx2.Request:
        known, plain = self._known, method.upper() == "POST" and isinstance(content, bytes)
        if plain and known is not None and known[0] == url:
            return httpx2.Request(method, known[1], headers=more["headers"], content=content, extensions=known[2])
        made = super().build_request(method, url, content=content, **more)
        if plain:
            self._known = (url, made.url, made.extensions)
        return made


def http_client(base_url: str, timeout_s: float, most_bytes: int = MOST_BYTES) -> httpx2.AsyncClient:
    """What the official client sends its requests with: no redirects, so that a key stays where the user sent it."""
    options: dict[str, Any] = {"timeout": timeout_s, "follow_redirects": False}
    try:
        return _Client(**options, transport=Wire(base_url, timeout_s, most_bytes))
    except (ImportError, ValueError, OSError) as error:  # not shown: the address of a proxy may hold a password
        raise UserError(
            f"the proxy or the certificates that the environment names cannot be used ({type(error).__name__})",
            "look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from None

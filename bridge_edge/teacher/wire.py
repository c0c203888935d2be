"""The way of one request to an endpoint and back, beneath the official client: urllib3 in the place of its transport.

The client's usual transport takes as much processor time as everything above it together, and waits for a reply without
end as long as a byte comes now and then. Here each reply is read whole, bounded in time and size, headers included.
Connections, TLS and the proxies that the environment names are urllib3's. The client above knows no difference: errors
are its library's own, so that what was surely never sent can be told from what may have been billed.

Not covered: HTTP/2, streaming, SOCKS proxies.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2  # what the official client is built on
import openai
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from bridge_edge.errors import UserError

DRIP = 10  # a reply that comes in pieces may take so many times the timeout in all
MOST_BYTES = 16 << 20  # of a reply
PIECE_BYTES = 1 << 20  # of what is sent or read at once
PACKED_BYTES = 64 << 10  # of a compressed reply, since it may unfold a thousandfold
IDLE_S = 5.0  # servers close connections that lie idle for longer
CONNECTIONS = 1024  # that are kept at the most


class TooMuch(httpx2.ReadError):
    """A reply beyond the bounds on its size."""


class _Bounded(io.RawIOBase):
    """The bytes of one reply, none after a point in time; it stands for a socket where `http.client` reads from one."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._raw, self._until = sock.makefile("rb", buffering=0), until  # lives on where the socket's owner closes it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() > self._until:
            raise TimeoutError
        return self._raw.readinto(buffer) or 0

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, method: str | None = None) -> None:
        source: Any = _Bounded(sock, time.monotonic() + DRIP * (sock.gettimeout() or 0.0))
        super().__init__(source, method=method)


class _Unsent(NewConnectionError):
    """No connection was made, so nothing was sent on it."""

    def __init__(self, connection: HTTPConnection, error: Exception) -> None:
        super().__init__(connection, type(error).__name__)
        self.slow = isinstance(error, TimeoutError) or type(error) is ConnectTimeoutError


class _Connection(HTTPConnection):
    """One that bounds its replies in time, is not used again after some idle seconds, and says when it was none."""

    response_class = _Reply
    _fresh_until = 0.0

    def connect(self) -> None:
        try:
            super().connect()
        except Exception as error:  # of DNS, TCP, TLS or a proxy; later ones may look the same and be billed
            raise _Unsent(self, error) from error

    @property
    def is_connected(self) -> bool:
        return time.monotonic() < self._fresh_until and super().is_connected

    def getresponse(self) -> Any:  # urllib3 and the class that it extends name different types
        reply = super().getresponse()
        self._fresh_until = time.monotonic() + IDLE_S
        return reply


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Wire(httpx2.BaseTransport):
    """Connections to one address; a call takes one that is free or opens another. Safe for threads."""

    def __init__(self, base_url: str, timeout_s: float, most_bytes: int = MOST_BYTES) -> None:
        options: dict[str, Any] = {"maxsize": CONNECTIONS, "timeout": timeout_s, "retries": False}
        if urlsplit(base_url).scheme == "https":
            options["ssl_context"] = httpx2.create_ssl_context()
        manager = _proxy_manager(base_url, options) or urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._pool = manager.connection_from_url(base_url)
        self._whole_url = self._pool.proxy is not None and self._pool.scheme == "http"  # is what proxies are asked for
        self._most = most_bytes

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        try:
            reply = self._pool.urlopen(
                request.method,
                str(request.url) if self._whole_url else request.url.raw_path.decode("ascii"),
                _pieces(body) if len(body) > PIECE_BYTES else body,
                {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw},
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
            content = self._read(reply)
        except (HTTPError, OSError, ValueError, http.client.HTTPException) as error:
            raise _named(error) from error
        if reply.headers.get("content-encoding") and len(content) > PACKED_BYTES:
            raise TooMuch("the compressed reply is too long")
        return httpx2.Response(reply.status, headers=list(reply.headers.items()), content=content)

    def _read(self, reply: urllib3.BaseHTTPResponse) -> bytes:
        content = bytearray()
        try:
            while piece := reply.read(PIECE_BYTES):
                content += piece
                if len(content) > self._most:
                    raise TooMuch("the reply is too long")
        except BaseException:  # Ctrl-C too: the rest of the reply would be taken for the next one
            reply.close()
            raise
        return bytes(content)

    def close(self) -> None:
        self._pool.close()


def _pieces(body: bytes) -> Iterator[bytes]:
    """The timeout is for each piece that is sent."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def _named(error: Exception) -> httpx2.HTTPError:
    """What went wrong as the error of the client's library for it.

    A `ProxyError` of urllib3 tells nothing by itself: it is also what becomes of a connection through a proxy that is
    reset after the request was sent.
    """
    error = getattr(error, "original_error", error)
    if isinstance(error, _Unsent):
        return (httpx2.ConnectTimeout if error.slow else httpx2.ConnectError)("no connection")
    if isinstance(error, (ReadTimeoutError, TimeoutError)) or any(isinstance(e, TimeoutError) for e in error.args):
        return httpx2.ReadTimeout("timed out")
    return httpx2.ReadError(type(error).__name__)


def _proxy_manager(base_url: str, options: dict[str, Any]) -> urllib3.ProxyManager | None:
    """By the environment; None where it names no proxy for this address."""
    url, proxies = urlsplit(base_url), getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user, _, password = (urlsplit(proxy).netloc.rpartition("@")[0]).partition(":")
    headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(user)}:{unquote(password)}") if user else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


class _Client(openai.DefaultHttpxClient):
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


def http_client(base_url: str, timeout_s: float, most_bytes: int = MOST_BYTES) -> httpx2.Client:
    """What the official client sends its requests with: no redirects, so that a key stays where the user sent it."""
    options: dict[str, Any] = {"timeout": timeout_s, "follow_redirects": False}
    try:
        return _Client(**options, transport=Wire(base_url, timeout_s, most_bytes))
    except (ImportError, ValueError, OSError) as error:  # not shown: the address of a proxy may hold a password
        raise UserError(
            f"the proxy or the certificates that the environment names cannot be used ({type(error).__name__})",
            "look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from None

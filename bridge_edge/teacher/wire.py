"""The way of one request to an endpoint and back, beneath the official client: HTTP/1.1 over kept connections.

The client's usual transport takes as much processor time as everything above it together, and waits for a reply without
end as long as a byte comes now and then. This one speaks the little HTTP that a chat completion needs, reads each reply
whole, and bounds it in time and size, headers included. The client above knows no difference: errors are its
library's own, so that what was surely never sent can be told from what may have been billed.

Where the environment names a proxy, the library's own transport is used instead, since it knows proxies.

Not covered: HTTP/2, streaming; the bounds behind a proxy.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2  # what the official client is built on
import openai

from bridge_edge.errors import UserError

DRIP = 10  # a reply that comes in pieces may take so many times the timeout in all
MOST_BYTES = 16 << 20  # of a reply with its headers
PIECE_BYTES = 1 << 20  # of what is sent
PACKED_BYTES = 64 << 10  # of a compressed one, since it may unfold a thousandfold
IDLE_S = 5.0  # servers close connections that lie idle for longer


class TooMuch(httpx2.ReadError):
    """A reply beyond the bounds on its size."""


class _Bounded(io.RawIOBase):
    """The bytes of one reply: so many at most, and none after a point in time."""

    def __init__(self, sock: socket.socket, most: int, until: float) -> None:
        self._sock, self._left, self._until = sock, most, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() > self._until:
            raise TimeoutError
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise TooMuch("the reply is too long")
        return count


class _Source:
    """What `http.client` asks of a socket in order to read a response from it."""

    def __init__(self, raw: _Bounded) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._raw)


class Wire(httpx2.BaseTransport):
    """Connections to one address; a call takes one that is free or opens another. Safe for threads."""

    def __init__(self, timeout_s: float, most_bytes: int = MOST_BYTES) -> None:
        self._timeout_s, self._most = timeout_s, most_bytes
        self._free: list[tuple[socket.socket, float]] = []  # with the time until which each may be used again
        self._context: ssl.SSLContext | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        until = time.monotonic() + DRIP * self._timeout_s
        sent = memoryview(_head(request) + request.read())
        sock = self._take() or self._connect(request.url)
        try:
            with _named("Write"):
                for start in range(0, len(sent), PIECE_BYTES):  # the timeout is for each piece
                    sock.sendall(sent[start : start + PIECE_BYTES])
            with _named("Read"):
                source: Any = _Source(_Bounded(sock, self._most, until))  # all of a socket that is used
                reply = http.client.HTTPResponse(source, method=request.method)
                reply.begin()
                body = reply.read()
        except BaseException:  # Ctrl-C too: the rest of the reply would be taken for the next one
            sock.close()
            raise
        if reply.will_close:
            sock.close()
        else:
            self._free.append((sock, time.monotonic() + IDLE_S))
        headers = reply.getheaders()
        if reply.getheader("content-encoding") and len(body) > PACKED_BYTES:
            raise TooMuch("the compressed reply is too long")
        with _named("Read"):
            return httpx2.Response(reply.status, headers=headers, content=body)

    def close(self) -> None:
        while self._free:
            self._free.pop()[0].close()

    def _take(self) -> socket.socket | None:
        """A connection that the server has not closed: one that can be read has ended, or says what nobody asked."""
        while self._free:
            try:
                sock, until = self._free.pop()
            except IndexError:  # another thread was quicker
                return None
            if time.monotonic() < until and not _readable(sock):
                return sock
            sock.close()
        return None

    def _connect(self, url: httpx2.URL) -> socket.socket:
        secure = url.scheme == "https"
        with _named("Connect"):
            sock = socket.create_connection((url.host, url.port or (443 if secure else 80)), self._timeout_s)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if secure:
                    self._context = self._context or httpx2.create_ssl_context()
                    sock = self._context.wrap_socket(sock, server_hostname=url.host)
            except BaseException:
                sock.close()
                raise
        return sock


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _head(request: httpx2.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@contextmanager
def _named(phase: str) -> Iterator[None]:
    """What goes wrong in a phase ("Connect", "Write", "Read") as the library's own error for it."""
    try:
        yield
    except TimeoutError as error:
        raise getattr(httpx2, f"{phase}Timeout")("timed out") from error
    except httpx2.HTTPError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a size or a status that is none
        raise getattr(httpx2, f"{phase}Error")(type(error).__name__) from error


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
        if _by_proxy(base_url):
            return openai.DefaultHttpxClient(**options)
        return _Client(**options, transport=Wire(timeout_s, most_bytes))
    except (ImportError, ValueError, OSError) as error:  # not shown: the address of a proxy may hold a password
        raise UserError(
            f"the proxy or the certificates that the environment names cannot be used ({type(error).__name__})",
            "look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from None


def _by_proxy(base_url: str) -> bool:
    url, proxies = urlsplit(base_url), getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not proxy_bypass(url.netloc)

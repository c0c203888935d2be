"""The bytes of a call, against servers of a few lines that answer in odd ways; time and size are bounded."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Request, TeacherError
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from tests.teacher.loopback import RESET, chat, serve

REQUEST = Request.of("a", "Is 2 even?", 20)
GOOD = chat("Answer: yes").encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD


@contextmanager
def raw(*answers: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list]]:
    """The n-th request is met with `answers[n]`, on whatever connection it comes; yields the address and the
    connections that were made."""
    listener, made, left = socket.create_server(("127.0.0.1", 0)), [], list(answers)

    def connection(plain: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(plain, server_side=True) if context else plain as sock:
            while left:
                data = b""
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                    if not (piece := sock.recv(65536)):
                        return
                    data += piece
                left.pop(0)(sock)

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                made.append(sock)
                threading.Thread(target=connection, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{listener.getsockname()[1]}/v1", made
    finally:
        listener.close()


def _length(data: bytes) -> int:
    lines = data.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))


def say(*pieces: bytes, close: bool = False, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(sock: socket.socket) -> None:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        if close:
            sock.shutdown(socket.SHUT_RDWR)

    return answer


def teacher(url: str, timeout_s: float = 5.0) -> OpenAITeacher:
    return OpenAITeacher(Endpoint("toy", url, "", timeout_s), Price(1, 2))


def fails(one: OpenAITeacher) -> TeacherError:
    with pytest.raises(TeacherError) as error:
        one.ask(REQUEST)
    return error.value


def test_one_connection_serves_many_calls_and_one_that_was_closed_is_not_used_again() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    until_closed = HEAD + b"\r\n" + GOOD
    answers = [say(WHOLE), say(chunked), say(WHOLE, close=True), say(until_closed, close=True), say(WHOLE)]
    with raw(*answers) as (url, made):
        one = teacher(url)
        for calls, connections in ((3, 1), (1, 2), (1, 3)):
            for _ in range(calls):
                assert one.ask(REQUEST).text == "Answer: yes"
            assert len(made) == connections
            time.sleep(0.05)  # the end of a connection is on its way


def test_a_connection_that_lay_idle_is_not_used_again_and_one_that_was_waited_for_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge_edge.teacher.wire.IDLE_S", 1.5)

    def slow(sock: socket.socket) -> None:
        time.sleep(2.0)
        sock.sendall(WHOLE)

    with raw(slow, say(WHOLE), say(WHOLE)) as (url, made):
        one = teacher(url)
        for idle, connections in ((0.0, 1), (0.0, 1), (2.5, 2)):
            time.sleep(idle)
            one.ask(REQUEST)
            assert len(made) == connections


def test_what_a_server_says_unasked_is_not_taken_for_the_next_reply() -> None:
    stale = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    with raw(say(WHOLE, stale, pause=0.1), say(WHOLE)) as (url, made):
        one = teacher(url)
        assert one.ask(REQUEST).text == "Answer: yes"
        time.sleep(0.5)
        assert one.ask(REQUEST).text == "Answer: yes"
        assert len(made) == 2


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (say(b"SSH-2.0-OpenSSH\r\n", close=True), "connection"),
        (say(b"HTTP/1.1 two hundred\r\n\r\n", close=True), "connection"),
        (say(HEAD + b"Content-Length: 9999\r\n\r\n" + GOOD, close=True), "connection"),
        (say(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", close=True), "connection"),
        (say(HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n", close=True), "connection"),
        (say(HEAD + b"X: y\r\n" * 200 + b"\r\n", close=True), "connection"),
        (say(b"", close=True), "connection"),
    ],
)
def test_what_is_no_http_may_have_been_billed(answer: Callable[[socket.socket], None], status: str) -> None:
    with raw(answer) as (url, _):
        error = fails(teacher(url))
    assert (error.status, error.billed, error.retryable) == (status, "unknown", True)


def test_a_reply_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps each wait short of the timeout, in the body and in the head."""
    monkeypatch.setattr("bridge_edge.teacher.wire.DRIP", 2)
    for start in (HEAD + b"Content-Length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "):
        with raw(say(start, *[b"x"] * 200, pause=0.05)) as (url, _):
            begun = time.monotonic()
            error = fails(teacher(url, timeout_s=0.3))
            assert (error.status, error.billed) == ("timeout", "unknown")
            assert time.monotonic() - begun < 8  # it would go on for ten


def test_a_reply_without_end_and_one_that_unfolds_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAITeacher, "most_bytes", 1 << 20)
    endless = say(HEAD + b"\r\n", *[b" " * 65536] * 32, close=True)
    packed = gzip.compress(b" " * (80 << 20))
    assert len(packed) < 1 << 20
    bomb = say(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed), packed)
    for answer in (endless, bomb):
        with raw(answer) as (url, _):
            error = fails(teacher(url))
        assert (error.status, error.billed, error.retryable) == ("too long", "unknown", False)
    small = gzip.compress(GOOD)  # not asked for, and read all the same
    with raw(say(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(small), small)) as (url, _):
        assert teacher(url).ask(REQUEST).text == "Answer: yes"


def test_an_address_that_cannot_be_reached_was_not_billed() -> None:
    for url in ("http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"):
        error = fails(teacher(url))
        assert (error.status, error.billed, error.retryable) == ("connection", "no", True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for this machine, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*words, "-keyout", str(path), "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_tls_is_used_and_checked(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with raw(say(WHOLE), say(WHOLE), context=context) as (url, made):
        unknown = fails(teacher(url))
        assert (unknown.status, unknown.billed) == ("connection", "no")  # nobody vouches for the certificate
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        one = teacher(url)
        assert [one.ask(REQUEST).text for _ in range(2)] == ["Answer: yes"] * 2
        assert len(made) == 2


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda n, b: (200, {}, GOOD)) as server:
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1").replace("//", "//man:p%20w@"))
        assert teacher("http://far.invalid/v1").ask(REQUEST).text == "Answer: yes"
        assert server.headers[0]["Host"] == "far.invalid"
        assert server.headers[0]["Proxy-Authorization"] == f"Basic {b64encode(b'man:p w').decode()}"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert teacher(server.url).ask(REQUEST).text == "Answer: yes"
        assert "Proxy-Authorization" not in server.headers[1]


def test_what_a_proxy_lost_may_have_been_billed_unless_it_let_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda n, b: (RESET, {}, "")) as server:
        for proxy, url, billed in (
            (server.url, "http://far.invalid/v1", "unknown"),
            (server.url, "https://far.invalid/v1", "no"),  # no tunnel
            ("http://127.0.0.1:1", "http://far.invalid/v1", "no"),
        ):
            monkeypatch.setenv("all_proxy", proxy)
            error = fails(teacher(url))
            assert (error.status, error.billed, error.retryable) == ("connection", billed, True)
        assert len(server.bodies) == 1


@contextmanager
def tunnel() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that connects its clients with whom they name; yields its address and what it was asked."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                asked.append(client.recv(65536).split(b"\r\n")[0])
                host, _, port = asked[-1].split()[1].decode().rpartition(":")
                server = socket.create_connection((host, int(port)))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked


def test_tls_goes_through_the_tunnel_of_a_proxy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    with raw(say(WHOLE), say(WHOLE), say(close=True), context=context) as (url, _), tunnel() as (proxy, asked):
        monkeypatch.setenv("https_proxy", proxy)
        one = teacher(url)
        assert [one.ask(REQUEST).text for _ in range(2)] == ["Answer: yes"] * 2
        assert fails(one).billed == "unknown"  # it was sent, whatever the proxy is blamed for
        assert [line.rpartition(b" ")[0] for line in asked] == [f"CONNECT {urlsplit(url).netloc}".encode()]


@pytest.mark.parametrize("proxy", ["socks5://hunter2@127.0.0.1:1", "gopher://hunter2@127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(UserError, match="ALL_PROXY") as error:
        teacher("http://127.0.0.1:1/v1")
    assert "hunter2" not in str(error.value)


def test_certificates_that_cannot_be_read_are_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(UserError, match="SSL_CERT_FILE"):
        teacher("https://127.0.0.1:1/v1")


def test_a_header_that_is_none_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    answer = say(HEAD + b"sk-canary\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD, close=True)
    with raw(answer) as (url, _):
        error = fails(teacher(url))
    assert (error.status, error.billed) == ("connection", "unknown")
    assert "canary" not in caplog.text + str(error)

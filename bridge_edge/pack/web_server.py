"""Show a packed web app on loopback: files of one folder, with the headers that a host should send.

Loopback is enough for a service worker; a phone needs https. Not covered: https, other machines, large audiences.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from bridge_edge.errors import UserError
from bridge_edge.progress import say

# The engines are wasm, and one of them starts its worker from a blob; nothing else may run, nothing outside be reached.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "img-src 'self'; style-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
ISOLATION = {  # without these two a browser gives no shared memory, and so no threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
TYPES = {  # what the system's table may lack
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def headers_text() -> str:
    """The headers for the configuration of a host, one a line."""
    return "".join(f"{name}: {value}\n" for name, value in {**HEADERS, **ISOLATION}.items())


class Pages(SimpleHTTPRequestHandler):
    """Files of one folder and nothing else; `isolated` says whether threads are to be allowed."""

    isolated: ClassVar[bool] = True

    def end_headers(self) -> None:
        for name, value in {**HEADERS, **(ISOLATION if self.isolated else {})}.items():
            self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: Any) -> str:
        return TYPES.get(Path(path).suffix) or super().guess_type(path)

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """A page asks for dozens of files; nobody reads that."""


class WithoutThreads(Pages):
    isolated = False


class Server(ThreadingHTTPServer):
    """Says nothing of a browser that goes away in the middle of a file."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def open_server(folder: Path, port: int, isolated: bool = True) -> ThreadingHTTPServer:
    """A server on loopback, not started yet; port 0 takes a free one."""
    try:
        handler = partial(Pages if isolated else WithoutThreads, directory=str(folder))
        return Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(f"cannot listen on port {port}: {error.strerror}", "choose another with --port") from None


def serve(folder: Path, port: int) -> None:
    """Serve until Ctrl-C."""
    with open_server(folder, port) as server:
        say(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()

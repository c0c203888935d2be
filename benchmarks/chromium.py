"""Drive a headless Chromium over a pipe, in its DevTools protocol: load a page, evaluate, watch what it asks for.

Why not a package for it: the protocol is JSON with a zero byte behind it on two file descriptors, and the checks need
three commands of it. Every name but loopback's fails to resolve, so that a page which asks anyone else shows. The
browser has a profile of its own that goes with it. Not covered: other browsers, input by mouse and keyboard.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bridge_edge.errors import UserError

NAMES = ("chromium", "chromium-browser", "google-chrome")
WORDS = (
    "--headless=new",
    "--no-sandbox",  # it runs as root in containers; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Chromium reads commands from descriptor 3 and writes to 4; both are beyond reach of subprocess itself.
LAUNCH = (
    "import os, sys; i, o = map(int, sys.argv[1:3]); os.dup2(i, 3); os.dup2(o, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
OPENED = 300.0  # seconds that one command may take
ATTACH = {  # to whatever a page starts
    "autoAttach": True,
    "waitForDebuggerOnStart": True,
    "flatten": True,
    "filter": [{"type": "service_worker"}, {"type": "worker"}],
}
LOCAL = ("blob:", "data:", "about:", "chrome-extension:")


def find() -> str | None:
    """The browser's program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab; `words` are further options of the browser. `requests`: every address that the tab, its workers and its
    service worker asked for; `errors`: what went to the console as an error, and exceptions that nothing caught."""

    def __init__(self, *words: str) -> None:
        program = find()
        if program is None:
            raise UserError("there is no Chromium here", f"install one of: {', '.join(NAMES)}")
        self._profile = tempfile.TemporaryDirectory(prefix="bridge-edge-chromium-", ignore_cleanup_errors=True)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._count, self._buffer = 0, b""
        self._answers: dict[int, dict[str, Any]] = {}
        commands, self._write = (_high(fd) for fd in os.pipe())
        self._read, replies = (_high(fd) for fd in os.pipe())
        launch = [sys.executable, "-c", LAUNCH, str(commands), str(replies), program, *WORDS, *words]
        self._process = subprocess.Popen(
            [*launch, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(commands, replies),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        tab = self.call("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        self.session: str = self.call("Target.attachToTarget", {"targetId": tab, "flatten": True}, None)["sessionId"]
        self._watch(self.session)
        self._post("Target.setAutoAttach", ATTACH, None)
        self.call("Page.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, UserError):
            self._post("Browser.close", {}, None)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def call(self, method: str, params: dict[str, Any] | None = None, session: str | None = "") -> dict[str, Any]:
        """Send one command (to the tab, or to the browser where `session` is None) and wait for what it returns."""
        number = self._post(method, params or {}, self.session if session == "" else session)
        end = time.monotonic() + OPENED
        while number not in self._answers:
            self._pump(end - time.monotonic())
        answer = self._answers.pop(number)
        if "error" in answer:
            raise UserError(f"Chromium refuses {method}: {answer['error'].get('message')}", "try a newer one")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited; what it throws is a UserError."""
        words = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self.call("Runtime.evaluate", words)
        if "exceptionDetails" in found:
            thrown = found["exceptionDetails"].get("exception", {})
            raise UserError(f"the page throws: {thrown.get('description', found['exceptionDetails']['text'])}", "")
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 120) -> Any:
        """Evaluate again and again until the value is true; a page that is only being loaded has none yet."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(UserError):
                value = self.evaluate(script)
                if value:
                    return value
            time.sleep(0.2)
        raise UserError(f"the page never came to {script!r}", "see what it shows in a browser")

    def scheme(self, name: str) -> None:
        """The colours that the user asks for: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, path: Path, size: tuple[int, int]) -> None:
        """A screenshot at a size in CSS pixels, of the whole height of the page."""
        shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
        self.call("Emulation.setDeviceMetricsOverride", shape)
        data = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
        path.write_bytes(base64.b64decode(data))

    def outside(self, origin: str) -> list[str]:
        """Requests to anywhere but `origin`."""
        return [url for url in self.requests if not url.startswith((origin, *LOCAL))]

    def _watch(self, session: str) -> None:
        for method in ("Network.enable", "Runtime.enable", "Log.enable"):
            self._post(method, {}, session)
        self._post("Target.setAutoAttach", ATTACH, session)
        self._post("Runtime.runIfWaitingForDebugger", {}, session)

    def _post(self, method: str, params: dict[str, Any], session: str | None) -> int:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._count

    def _pump(self, seconds: float) -> None:
        """Read what has come and sort it: answers by number, and events."""
        if not select.select([self._read], [], [], max(0.0, seconds))[0]:
            raise UserError(f"Chromium has not answered within {OPENED:g} s", "try again on a quieter machine")
        data = os.read(self._read, 1 << 20)
        if not data:
            raise UserError("Chromium has ended", "see whether it starts by hand: chromium --headless about:blank")
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in messages:
            found = json.loads(message)
            if "id" in found:
                self._answers[found["id"]] = found
            else:
                self._event(found["method"], found.get("params", {}))

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Target.attachedToTarget":
            self._watch(params["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description", params))[:300])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"])[:300])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}"[:300])


def _high(fd: int) -> int:
    """The same descriptor under a number that the two of the protocol do not take."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return high

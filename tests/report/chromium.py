"""A headless Chromium that is told what to do through a pipe, in the words of its DevTools."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from select import select
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE = 20.0
_KEYS = {"Enter": 13, "Escape": 27, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37,
         "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}  # fmt: skip


def find_chromium() -> str | None:
    """The browser's program, or None."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page.

    Attributes:
        problems: What the page's console said as a warning or error, and uncaught errors.
        requests: Addresses that were asked for, those of data and blobs left out.
    """

    def __init__(self, profile: Path) -> None:
        program = find_chromium()
        if program is None:
            pytest.skip("no Chromium is installed: `make chromium`")
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)
        self._buffer = b""
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()

        def on_3_and_4() -> None:
            # Where one pipe has a number that the browser expects of the other, it must move first.
            there, back = os.dup(commands_out), os.dup(answers_in)
            os.dup2(there, 3)
            os.dup2(back, 4)

        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=on_3_and_4, close_fds=False,
        )  # fmt: skip
        os.close(commands_out)
        os.close(answers_in)
        targets = self._call("Target.getTargets", session=None)["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self._call("Target.attachToTarget", session=None, targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Performance.enable", timeDomain="threadTicks")

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(_PATIENCE)
        os.close(self._commands)
        os.close(self._answers)

    def _call(self, method: str, session: str | None = "page", **params: Any) -> Any:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> Any:
        """The next message; events are noted on the way."""
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._answers], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError("Chromium does not answer")
            self._buffer += os.read(self._answers, 1 << 20)
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, params: Any) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details)))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript; what it promises is waited for."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true of the page."""
        deadline = time.monotonic() + _PATIENCE
        while not self.ask(f"!!({expression})"):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.02)

    def offline(self) -> None:
        """Take the network away."""
        self._call(
            "Network.emulateNetworkConditions",
            offline=True, latency=0, downloadThroughput=0, uploadThroughput=0,
        )  # fmt: skip

    def resize(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Size of the page in CSS pixels, and what it is told of the reader's wishes."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, fragment: str = "") -> float:
        """Open a file; seconds until the page says that it is ready."""
        self._call("Page.navigate", url="about:blank")
        begun = time.monotonic()
        self._call("Page.navigate", url=page.absolute().as_uri() + fragment)
        self.wait_for("document.documentElement?.dataset.ready === 'true'")
        return time.monotonic() - begun

    def processor_seconds(self) -> float:
        """Time on the processor that the open page has taken so far, drawing included."""
        found = self._call("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in found if each["name"] == "TaskDuration"))

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = _KEYS.get(key)
        told = {"key": key, "code": key} if code else {"key": key, "text": key}
        if key == "Enter":
            told["text"] = "\r"
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=code or ord(key.upper()),
                **(told if kind == "keyDown" else {"key": key}),
            )  # fmt: skip

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self._call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        box = self.ask(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], clickCount=1,
                button="none" if kind == "mouseMoved" else "left",
            )  # fmt: skip

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        self.ask(
            f"(() => {{ const s = document.querySelector({json.dumps(selector)});"
            f"s.value = {json.dumps(value)}; s.dispatchEvent(new Event('input')); }})()"
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """What the page looks like, as a PNG."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

"""A real browser, driven over a pipe by the DevTools protocol: what pages are looked at with.

The protocol is JSON, a null character behind each message, on file descriptors 3 and 4 of the browser.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)
WHY_NOT = "no chromium or chrome is installed to open the page in"
WORDS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
    "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe", "--proxy-server=127.0.0.1:9",
)  # fmt: skip
PATIENCE_S = 120.0


class Browser:
    """One window. `said` are the console's messages and faults, `asked` the addresses that were fetched."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        apart = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (theirs_in, theirs_out)]

        def wire() -> None:
            os.dup2(apart[0], 3)
            os.dup2(apart[1], 4)

        self._process = subprocess.Popen(
            [str(PROGRAM), *WORDS, f"--user-data-dir={self._folder.name}", "about:blank"],
            preexec_fn=wire,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, *apart):
            os.close(fd)
        self._in, self._out = ours_in, ours_out
        self._left, self._number = b"", 0
        self._session: str | None = None
        self.said: list[str] = []
        self.asked: list[str] = []
        self._loaded = False

    def __enter__(self) -> Browser:
        """Attach to the first window."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the browser."""
        os.close(self._out)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._folder.cleanup()

    def open(self, path: Path, *, width: int = 1000, dark: bool = False) -> None:
        """Open a file at a width in pixels; wait until it is loaded."""
        self.said, self.asked, self._loaded = [], [], False
        self.shape(width, dark=dark)
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE_S
        while not self._loaded and time.monotonic() < end:
            self._heard(self._read())

    def shape(self, width: int, *, dark: bool = False, media: str = "") -> None:
        """Give the window a width, and the page the colours and the medium that are asked for."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def ask(self, script: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **text,
            )

    def click(self, what: str) -> None:
        """Move to the middle of the first element of a selector, and click there."""
        box = f"document.querySelector({json.dumps(what)}).getBoundingClientRect()"
        self.ask(f"scrollTo(0, {box}.top + scrollY - 300)")
        x, y = self.ask(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def paper(self) -> bytes:
        """Return the page as it is printed: a PDF."""
        answer = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._heard(answer)

    def _heard(self, event: dict[str, Any]) -> None:
        name, values = event.get("method", ""), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded = True
        elif name in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(values)[:500])
        elif name == "Network.requestWillBeSent":
            self.asked.append(values["request"]["url"][:200])

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0.0))
            assert ready, "the browser does not answer"
            some = os.read(self._in, 1 << 20)
            assert some, "the browser has ended"
            self._left += some
        first, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer


def pages_of(pdf: bytes) -> int:
    """Return how many pages a PDF of chromium's has: it writes the objects of pages in the clear."""
    return pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/")


def main(words: Sequence[str]) -> None:
    """Write pictures of a page at three widths, light and dark, and what is printed of it."""
    source, folder = Path(words[0]).resolve(), Path(words[1])
    with Browser() as browser:
        for width in (360, 800, 1600):
            for dark in (False, True):
                browser.open(source, width=width, dark=dark)
                browser.picture(folder / f"{source.stem}-{width}-{'dark' if dark else 'light'}.png")
        (folder / f"{source.stem}.pdf").write_bytes(browser.paper())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])

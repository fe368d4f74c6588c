"""A real Chromium, driven as a person would: its own protocol over a pipe, without another package."""

import base64
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_CODES = {"Enter": 13, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36}
_CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, " ": 32}


class Browser:
    """One browser, with a profile that outlives its tabs."""

    def __init__(self, out: int, into: int) -> None:
        self.out, self.into, self.last, self.unread = out, into, 0, b""
        self.context: dict[str, str] = {}

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self.last:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            part = os.read(self.into, 1 << 20)
            if not part:
                raise RuntimeError("the browser has gone")
            self.unread += part
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Tabs that are opened meanwhile share their storage with one another and with no other."""
        made = self.call("Target.createBrowserContext")["browserContextId"]
        self.context = {"browserContextId": made}
        try:
            yield
        finally:
            self.context = {}
            self.call("Target.disposeBrowserContext", browserContextId=made)

    def tab(self, page: Path, width: int = 1200, height: int = 900, touch: bool = False) -> "Tab":
        """Open a page from its file."""
        target = self.call("Target.createTarget", url="about:blank", **self.context)["targetId"]
        tab = Tab(self, target)
        tab.call("Page.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        tab.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        # No network at all, and what goes wrong is kept for the test to see.
        tab.call("Network.enable")
        tab.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        watch = "window.wrong=[];addEventListener('error',e=>wrong.push(e.message));"
        watch += "addEventListener('securitypolicyviolation',e=>wrong.push(e.blockedURI));"
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=watch)
        tab.go(page.as_uri())
        return tab

    def downloads_to(self, folder: Path) -> None:
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), **self.context)


class Tab:
    """One open page."""

    def __init__(self, browser: Browser, target: str) -> None:
        self.browser, self.target = browser, target
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, expression: str, seconds: float = 20) -> None:
        """Until an expression holds; a page that is just being left holds nothing."""
        end = time.monotonic() + seconds
        while not self._holds(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.02)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.js(expression))
        except RuntimeError as error:
            if "navigated or closed" in str(error):
                return False
            raise

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into sight."""
        box = self.js(
            f"(e=>{{e.scrollIntoView({{block:'nearest'}});const b=e.getBoundingClientRect();"
            f"return [b.x+b.width/2,b.y+b.height/2]}})(document.querySelector({json.dumps(selector)}))"
        )
        return box[0], box[1]

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector: str) -> None:
        x, y = self.place(selector)
        self.drag(x, y, x, y)

    def drag(self, x: float, y: float, to_x: float, to_y: float, button: str = "left") -> None:
        held = {"left": 1, "right": 2}[button]
        self.mouse("mousePressed", x, y, button=button, buttons=held, clickCount=1)
        if (x, y) != (to_x, to_y):
            self.mouse("mouseMoved", to_x, to_y, button=button, buttons=held)
        self.mouse("mouseReleased", to_x, to_y, button=button, clickCount=1)

    def wheel(self, selector: str, notches: int, ctrl: bool = False) -> None:
        x, y = self.place(selector)
        more = {"modifiers": 2} if ctrl else {}
        for _ in range(abs(notches)):
            self.mouse("mouseWheel", x, y, deltaX=0, deltaY=100 if notches > 0 else -100, **more)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=at)

    def key(self, name: str, shift: bool = False) -> None:
        """Press a key: a letter, or a name such as "ArrowUp"."""
        code = _CODES.get(name) or ord(name.upper())
        event = {"key": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"text": name if len(name) == 1 else "\r"} if len(name) == 1 or name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, selector: str, text: str) -> None:
        self.click(selector)
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> Path:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
        end = time.monotonic() + 10
        while any(t["targetId"] == self.target for t in self._targets()) and time.monotonic() < end:
            time.sleep(0.02)

    def _targets(self) -> list[dict[str, Any]]:
        return self.browser.call("Target.getTargets")["targetInfos"]


def dom(page: Path, profile: Path, width: int = 900) -> str:
    """A page as it stands after its scripts have run, by Chromium's own --dump-dom."""
    assert PROGRAM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--no-first-run", f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom"]
    words = [PROGRAM, *flags, page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a headless Chromium with its data in `profile`, and end it."""
    assert PROGRAM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command = shlex.join([PROGRAM, *flags, f"--user-data-dir={profile}", "about:blank"])
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The browser reads file 3 and writes file 4.
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command} 3<&{theirs_in} 4>&{theirs_out}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(ours_out, ours_in)
    try:
        yield browser
        browser.call("Browser.close")
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours_out)
        os.close(ours_in)

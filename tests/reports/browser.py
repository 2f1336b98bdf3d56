"""A real browser for the tests, Debian's chromium or Chrome: driven over its own debugging pipe, so that nothing else is needed."""

import base64
import itertools
import json
import os
import shutil
import subprocess

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--remote-debugging-pipe",
    # A request that got out would fail and be reported.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


class Browser:
    """One page. Messages are JSON that ends in a zero byte, to the program's file 3 and from its file 4."""

    def __init__(self, profile):
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # The shell puts the pipes where the program looks for them.
        line = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
        ends = (read_there, write_there)
        self.process = subprocess.Popen(
            ["bash", "-c", line, *map(str, ends), PROGRAM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self.there, self.here = os.fdopen(write_here, "wb", 0), os.fdopen(read_here, "rb")
        self.numbers, self.events, self.session = itertools.count(1), [], {}
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params, **self.session}
        self.there.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        message = bytearray()
        while (byte := self.here.read(1)) != b"\0":
            assert byte, "the browser went away"
            message += byte
        return json.loads(message)

    def open(self, address, width, dark=False):
        """Load a page in a window of that many CSS pixels; what happened before is forgotten."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=address)
        while not self.happened("Page.loadEventFired"):
            self.events.append(self._read())

    def happened(self, *methods):
        return [event["params"] for event in self.events if event.get("method") in methods]

    def ask(self, expression):
        """The value of an expression of the page's script."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code):
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector):
        """The mouse in the middle of the first such element that is seen."""
        place = self.ask(
            f"(() => {{ const found = [...document.querySelectorAll('{selector}')].find((each) => each.offsetParent);"
            "found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect();"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def screenshot(self):
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def pdf(self):
        return base64.b64decode(self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])

    def close(self):
        self.send("Browser.close")
        self.process.wait(timeout=30)
        self.there.close()
        self.here.close()

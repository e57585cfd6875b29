"""Chromium without a screen, told what to do by the DevTools protocol: what a page says, how it looks, how soon it is painted.

Only what is needed of WebSocket (RFC 6455) is here: a client's text messages, and those of a server in any number of
frames.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from .host import Failure, Lab, wait_until

START_SECONDS_MAX = 30
ANSWER_SECONDS_MAX = 60
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-port=0",
)


class Socket:
    """A WebSocket's client, in messages of text."""

    def __init__(self, port: int, path: str) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        key = base64.b64encode(os.urandom(16)).decode()
        self._stream.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        self._buffer = bytearray()
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise Failure(f"the browser refuses a WebSocket: {head[:80]!r}")
        self._buffer = bytearray(rest)

    def _more(self) -> None:
        chunk = self._stream.recv(1 << 16)
        if not chunk:
            raise Failure("the browser closed the connection")
        self._buffer += chunk

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def send(self, text: str) -> None:
        """Sends one message."""
        payload, mask = text.encode(), os.urandom(4)
        size = len(payload)
        length = (
            bytes([0x80 | size])
            if size < 126
            else bytes([0x80 | 126]) + struct.pack(">H", size)
            if size < 1 << 16
            else bytes([0x80 | 127]) + struct.pack(">Q", size)
        )
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self._stream.sendall(b"\x81" + length + mask + masked)

    def receive(self, seconds: float) -> str:
        """The next message; raises `TimeoutError`."""
        self._stream.settimeout(seconds)
        message = b""
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                size = struct.unpack(">H", self._take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self._take(8))[0]
            payload = self._take(size)
            if first & 0x0F in (0, 1, 2):
                message += payload
                if first & 0x80:
                    return message.decode()

    def close(self) -> None:
        """Ends it."""
        self._stream.close()


@dataclass
class Page:
    """One tab. What the page's console said that is worse than information is in `errors`."""

    socket: Socket
    errors: list[str] = field(default_factory=list)
    _last: int = 0

    def tell(self, method: str, **parameters: object) -> dict:
        """Has the browser do something and returns its answer."""
        self._last += 1
        self.socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.socket.receive(ANSWER_SECONDS_MAX))
            self._note(said)
            if said.get("id") == self._last:
                if "error" in said:
                    raise Failure(f"the browser refuses {method}: {said['error']}")
                return said["result"]

    def _note(self, said: dict) -> None:
        method, parameters = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(argument.get("value", argument)) for argument in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())

    def begin(self) -> None:
        """Listens to what the page says."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def look(self, width: int, height: int, theme: str = "light", scale: float = 1, touch: bool = False) -> None:
        """Sets the window's size and what the system says of colours."""
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch
        )
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, url: str) -> None:
        """Opens an address."""
        self.tell("Page.navigate", url=url)

    def value(self, expression: str) -> object:
        """What a JavaScript expression is, promises awaited."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failure(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, what: str, expression: str, seconds: float = 20) -> object:
        """Waits until an expression is true."""
        return wait_until(what, lambda: self.value(f"!!({expression})"), seconds)

    def screenshot(self, path: Path, top: int = 0, height: int | None = None) -> None:
        """A picture of the page, or of so many pixels of it from `top` on, below the window's edge as well."""
        clip = {
            "x": 0,
            "y": top,
            "width": self.value("innerWidth"),
            "height": height or self.full_height() - top,
            "scale": 1,
        }
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def full_height(self) -> int:
        """Of all that the page has, in pixels."""
        return int(self.value("document.documentElement.scrollHeight"))


class Browser:
    """A running Chromium; ends with its lab."""

    def __init__(self, lab: Lab, line: list[str] | None = None, name: str = "browser") -> None:
        """`line` begins the command line that starts it, such as one that enters a namespace."""
        profile = lab.dir / name
        profile.mkdir()
        lab.spawn(name, [*(line or []), "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"])
        told = profile / "DevToolsActivePort"
        wait_until("the browser listens", lambda: told.exists() and "\n" in told.read_text(), START_SECONDS_MAX)
        self.port = int(told.read_text().splitlines()[0])

    def page(self) -> Page:
        """A new tab."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(asked, timeout=ANSWER_SECONDS_MAX) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        page = Page(Socket(self.port, "/" + address.split("/", 3)[3]))
        page.begin()
        return page

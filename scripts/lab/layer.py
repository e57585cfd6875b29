"""One large layer that is nowhere a file: the registry that makes it up, and a client that only hashes it.

The bytes are a seeded block of random ones, over and over, with each mebibyte's number at its start, so that no two
pieces are alike and nothing compresses. Both ends are processes of this Python; they end with it.
"""

from __future__ import annotations

import hashlib
import http.client
import http.server
import multiprocessing
import random
import re
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized

from .filler import SEED
from .host import Failure
from .usage import MIB

BLOCK_MIB = 16
"""The period of the random bytes: what the registry keeps in memory."""
READ_BYTES = MIB
STALL_SECONDS_MAX = 60
"""Longest wait for a byte, at either end."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
FORK = multiprocessing.get_context("fork")


class Layer:
    """The bytes, by their offset."""

    def __init__(self, size: int) -> None:
        self.size = size
        block = random.Random(SEED).randbytes(BLOCK_MIB * MIB)
        self._parts = [memoryview(block)[at:at + MIB] for at in range(0, len(block), MIB)]
        digest = hashlib.sha256()
        for part in self.parts(0, size):
            digest.update(part)
        self.digest = f"sha256:{digest.hexdigest()}"

    def parts(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes from `start` to `end`, excluded."""
        for number in range(start // MIB, -(-end // MIB)):
            first, last = max(start - number * MIB, 0), min(end - number * MIB, MIB)
            mark = memoryview(number.to_bytes(8, "big"))
            for piece in (mark[first:last], self._parts[number % BLOCK_MIB][max(first, len(mark)):last]):
                if piece:
                    yield piece


class Origin:
    """A registry on loopback that has this one layer, in whatever repository it is asked for. A context manager."""

    def __init__(self, layer: Layer) -> None:
        class Handler(_Handler):
            served = layer

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._process = FORK.Process(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Origin:
        self._process.start()
        self._server.socket.close()  # the process has its own
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = STALL_SECONDS_MAX
    served: Layer

    def do_HEAD(self) -> None:
        """The head of the same answer."""
        self.do_GET()

    def do_GET(self) -> None:
        """The layer, a range of it, or the API's version."""
        layer, start, end = self.served, 0, self.served.size
        if self.path.rstrip("/") == "/v2":
            return self._head(200, 0)
        if not self.path.endswith(f"/blobs/{layer.digest}"):
            return self._head(404, 0)
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            end = min(int(asked[2]) + 1, end) if asked[2] else end
            if start >= end:
                return self._head(416, 0, ("Content-Range", f"bytes */{layer.size}"))
            self._head(206, end - start, ("Content-Range", f"bytes {start}-{end - 1}/{layer.size}"))
        else:
            self._head(200, end, ("Docker-Content-Digest", layer.digest))
        if self.command == "GET":
            try:
                for part in layer.parts(start, end):
                    self.connection.sendall(part)
            except OSError:
                self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        """Nothing: clients say what went wrong."""

    def _head(self, status: int, length: int, *more: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(length)), ("Accept-Ranges", "bytes"), *more):
            self.send_header(name, value)
        self.end_headers()


class Client:
    """A process that asks a mirror for the layer, throws the bytes away and keeps their digest."""

    def __init__(self, mirror: str, registry: str, layer: Layer) -> None:
        self.mirror, self.layer = mirror, layer
        self._path = f"/v2/bench/layer/blobs/{layer.digest}?ns={registry}"
        self._received: Synchronized = FORK.Value("Q", 0)
        self._reading, self._writing = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=self._pull, daemon=True)
        self._process.start()
        self._writing.close()
        self._said: str | None = None

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._received.value

    def done(self) -> bool:
        """Whether it has ended well; raises `Failure` if it ended otherwise."""
        if self._process.is_alive():
            return False
        if self._said is None:
            try:
                self._said = self._reading.recv()
            except EOFError:
                self._said = "it ended without a word"
        if self._said:
            raise Failure(f"the client of {self.mirror}, after {self.received:,} bytes: {self._said}; "
                          "its node's log says more")
        return True

    def kill(self) -> None:
        """Ends it, if it still runs."""
        self._process.kill()
        self._process.join()

    def _pull(self) -> None:
        """Says an empty text, or what went wrong."""
        try:
            self._writing.send(self._wrong())
        except (OSError, http.client.HTTPException) as error:
            self._writing.send(f"{type(error).__name__}: {error}")

    def _wrong(self) -> str:
        connection = http.client.HTTPConnection(self.mirror, timeout=STALL_SECONDS_MAX)
        connection.request("GET", self._path)
        response = connection.getresponse()
        if response.status != 200:
            return f"status {response.status}: {response.read(300).decode(errors='replace')}"
        digest, buffer = hashlib.sha256(), memoryview(bytearray(READ_BYTES))
        while count := response.readinto(buffer):
            digest.update(buffer[:count])
            self._received.value += count
        if self._received.value != self.layer.size:
            return f"the answer ended early, of {self.layer.size:,} bytes"
        found = f"sha256:{digest.hexdigest()}"
        return "" if found == self.layer.digest else f"the bytes have the digest {found}"

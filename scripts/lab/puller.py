"""A device's container runtime, as the simulator has it: first the manifest, then the blobs, three at once.

It runs on the device and reads a line of JSON for each pull that it is told of; what fails is asked for again after 10 s,
and later and later. It keeps nothing but digests. A line of JSON says when a pull is done, by the machine's monotonic
clock. It ends when nobody tells it anything more.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import queue
import socket
import sys
import threading
import time

MIRROR = ("127.0.0.1", 7117)
AT_ONCE = 3
"""Blobs of one pull."""
RETRY_FIRST_S, RETRY_LAST_S = 10.0, 300.0
"""Before what failed is asked for again: doubles each time."""
SILENCE_SECONDS_MAX = 600
"""Longest wait for a byte of the node."""
START_SECONDS_MAX = 30
"""Deadline of the node to listen, from this program's start."""
POLL_S = 0.02
READ_BYTES = 1 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Failed(Exception):
    """The node did not give what was asked for."""


def get(path: str, digest: str) -> None:
    """Gets one thing and checks its digest."""
    connection = http.client.HTTPConnection(*MIRROR, timeout=SILENCE_SECONDS_MAX)
    try:
        connection.request("GET", path, headers={"Accept": MANIFEST_TYPE})
        response = connection.getresponse()
        if response.status != 200:
            raise Failed(f"{path}: status {response.status}: {response.read(300).decode(errors='replace')}")
        found, buffer = hashlib.sha256(), memoryview(bytearray(READ_BYTES))
        while count := response.readinto(buffer):
            found.update(buffer[:count])
        if f"sha256:{found.hexdigest()}" != digest:
            raise Failed(f"{path}: other bytes, or not all of them")
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{path}: {type(error).__name__}: {error}") from None
    finally:
        connection.close()


class Pull:
    """One image on its way."""

    def __init__(self, told: dict) -> None:
        self.told = told
        self.blobs: queue.SimpleQueue[str] = queue.SimpleQueue()
        for digest in told["blobs"]:
            self.blobs.put(digest)
        self.path = f"/v2/{told['repository']}"
        self.query = f"?ns={told['registry']}"

    def run(self) -> None:
        """Gets all of it, however often that takes: whoever started this ends it."""
        self._get(f"manifests/{self.told['manifest']}", self.told["manifest"])
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(AT_ONCE)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        tell({"pull": self.told["pull"], "done": time.monotonic()})

    def _work(self) -> None:
        while True:
            try:
                digest = self.blobs.get_nowait()
            except queue.Empty:
                return
            self._get(f"blobs/{digest}", digest)

    def _get(self, what: str, digest: str) -> None:
        wait = RETRY_FIRST_S
        while True:
            try:
                get(f"{self.path}/{what}{self.query}", digest)
                return
            except Failed as failed:
                print(f"{time.monotonic():.3f} {failed}", file=sys.stderr, flush=True)
            never = threading.Event()
            never.wait(wait)
            wait = min(2 * wait, RETRY_LAST_S)


TELLING = threading.Lock()


def tell(what: dict) -> None:
    """Says something to whoever started this."""
    with TELLING:
        print(json.dumps(what), flush=True)


def wait_for_the_node() -> None:
    """Waits until something listens at the mirror's address."""
    deadline = time.monotonic() + START_SECONDS_MAX
    never = threading.Event()
    while time.monotonic() < deadline:
        try:
            socket.create_connection(MIRROR, timeout=1).close()
            return
        except OSError:
            never.wait(POLL_S)
    raise SystemExit("the node does not listen")


def main() -> None:
    """Pulls what it is told to."""
    wait_for_the_node()
    tell({"ready": time.monotonic()})
    for line in sys.stdin:
        threading.Thread(target=Pull(json.loads(line)).run, daemon=True).start()


if __name__ == "__main__":
    main()

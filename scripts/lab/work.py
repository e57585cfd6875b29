"""Work that goes on all the time on devices: pulls through the node's mirror, by threads inside of the device's namespace.

Every byte is hashed. A pull that fails is counted; one that ends well with other bytes than were pushed is a defect.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import os
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from .image import MANIFEST_TYPE, Image, native_architecture
from .registry import HOST

MIRROR_PORT = 7117
CLONE_NEWNET = 0x40000000
SILENCE_SECONDS_MAX = 40
"""Longest wait for a byte of the node, which gives up on sources before."""
READ_BYTES = 1 << 18
PAUSE_S = (0.1, 1.5)
"""Between two pulls of one thread."""
BREAK_OFF_SHARE = 0.08
"""Pulls that the runtime gives up in the middle of a blob."""

_LIBC = ctypes.CDLL(None, use_errno=True)


class WrongBytes(Exception):
    """What must never be."""


class Failed(Exception):
    """The node gave no whole answer."""


class BrokenOff(Exception):
    """The runtime wanted no more."""


@dataclass
class Tally:
    """What the work came to; threads share it."""

    pulls: int = 0
    failed: int = 0
    broken_off: int = 0
    bytes: int = 0
    reasons: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def enter(namespace: str) -> None:
    """Moves the calling thread, and it alone, into a network namespace."""
    file = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(file, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(file)


@dataclass(frozen=True)
class Named:
    """An image in the registry."""

    repository: str
    tag: str
    image: Image

    @property
    def digest(self) -> str:
        """The index's."""
        return self.image.index.digest

    @property
    def reference(self) -> str:
        """As people write it."""
        return f"{HOST}/{self.repository}:{self.tag}"


class Puller:
    """A container runtime of a device, which keeps nothing but counts."""

    def __init__(self, namespace: str, tally: Tally) -> None:
        self.namespace, self.tally = namespace, tally

    def pull(self, named: Named, by_tag: bool, break_off_at: int | None = None) -> None:
        """Pulls all of an image once; raises `Failed`, `BrokenOff` or `WrongBytes`."""
        platform = named.image.platforms[native_architecture()]
        top = named.tag if by_tag else named.digest
        taken = self._get(named, f"manifests/{top}", named.digest, named.image.index.size, None)
        taken += self._get(named, f"manifests/{platform.manifest.digest}", platform.manifest.digest,
                           platform.manifest.size, None)
        for blob in (platform.config, *platform.layers):
            left = None if break_off_at is None else max(0, break_off_at - taken)
            taken += self._get(named, f"blobs/{blob.digest}", blob.digest, blob.size, left)

    def _get(self, named: Named, what: str, digest: str, size: int, bytes_max: int | None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", MIRROR_PORT, timeout=SILENCE_SECONDS_MAX)
        try:
            connection.request("GET", f"/v2/{named.repository}/{what}?ns={HOST}", headers={"Accept": MANIFEST_TYPE})
            response = connection.getresponse()
            if response.status != 200:
                raise Failed(f"status {response.status}")
            found, count = hashlib.sha256(), 0
            while chunk := response.read(READ_BYTES):
                found.update(chunk)
                count += len(chunk)
                with self.tally.lock:
                    self.tally.bytes += len(chunk)
                if bytes_max is not None and count > bytes_max:
                    raise BrokenOff
            if response.length not in (None, 0) or count != size:
                raise Failed("ended short")
        except (OSError, http.client.HTTPException) as error:
            raise Failed(type(error).__name__) from None
        finally:
            connection.close()
        if f"sha256:{found.hexdigest()}" != digest:
            raise WrongBytes(f"{self.namespace}: {named.reference} {what}: {count} bytes with another digest")
        return count

    def try_to(self, named: Named, by_tag: bool, break_off_at: int | None = None) -> bool:
        """Pulls an image once and counts what comes of it; says whether all of it came."""
        with contextlib.suppress(BrokenOff):
            try:
                self.pull(named, by_tag, break_off_at)
            except Failed as failed:
                with self.tally.lock:
                    self.tally.failed += 1
                    self.tally.reasons[str(failed)] += 1
                return False
            except WrongBytes as wrong:
                with self.tally.lock:
                    self.tally.wrong.append(str(wrong))
                return False
            with self.tally.lock:
                self.tally.pulls += 1
            return True
        with self.tally.lock:
            self.tally.broken_off += 1
        return False


class Work:
    """Threads that pull random images on a device until they are told to stop."""

    def __init__(self, namespace: str, images: list[Named], tally: Tally, seed: str, threads: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True, args=(
            namespace, images, tally, random.Random(f"{seed} {namespace} {number}"))) for number in range(threads)]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends, each thread after the pull that it is at."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Waits until all have ended; says whether they have."""
        for thread in self._threads:
            thread.join(seconds)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, namespace: str, images: list[Named], tally: Tally, dice: random.Random) -> None:
        enter(namespace)
        puller = Puller(namespace, tally)
        while not self._stop.is_set():
            # Some more often than others, so that they are held by several and what is rare is evicted.
            named = images[min(int(dice.paretovariate(0.8)) - 1, len(images) - 1)] if dice.random() < 0.6 else dice.choice(images)
            size = named.image.pull_bytes(native_architecture())
            break_off_at = dice.randrange(size) if dice.random() < BREAK_OFF_SHARE else None
            whole = puller.try_to(named, dice.random() < 0.7, break_off_at)
            self._stop.wait(dice.uniform(*PAUSE_S) if whole else 0.5 + dice.random())

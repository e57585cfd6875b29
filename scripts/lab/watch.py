"""What a node's store takes on disk, looked at all the time, and whether anything goes from it that must stay."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .host import Lab
from .node import Node

PAUSE_S = 0.004
"""Between two looks, each of which takes about a millisecond."""
BLOCK_BYTES = 512
"""What `st_blocks` counts (stat(3type))."""
PAGE_BYTES = 4096
"""What a file system may round a file up to."""
STOP_SECONDS_MAX = 10


@dataclass(frozen=True)
class Taken:
    """What is in a store at a moment."""

    whole: frozenset[str]
    begun: frozenset[str]
    bytes: int
    """Lengths of all blobs' files, whole and begun; of one that is begun that is its whole length."""
    allocated: int
    """What the disk gave to these, and to files that were removed and are still open, beyond a page a file."""


@dataclass
class Guard:
    """Blobs that must not go once they are there."""

    name: str
    hexes: frozenset[str]
    unless: frozenset[str] = frozenset()
    """The guard ends once all of these are there."""
    since: frozenset[str] = frozenset()
    """Those that were there before and do not count until they come again."""
    seen: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    ended: bool = False

    def look(self, taken: Taken) -> bool:
        """Takes note; says whether something is missing."""
        there = taken.whole | taken.begun
        self.since &= there
        self.seen |= (self.hexes & there) - self.since
        self.ended = self.ended or bool(self.unless) and self.unless <= taken.whole
        return not self.ended and not self.seen - self.lost <= there


class Watch:
    """Looks at a node's store until it is told to stop. A context manager."""

    def __init__(self, lab: Lab, node: Node) -> None:
        self._store = node.data_dir / "store"
        self._files = Path(f"/proc/{lab.pid(node.name)}/fd")
        self._data_dir = node.data_dir
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._guards: list[Guard] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bytes_max = self.allocated_max = self.looks = 0
        self.failure: str | None = None
        self.violations: list[str] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS_MAX)

    def now(self) -> Taken:
        """What is there now."""
        return taken(self._store, self._files)

    def beside_bytes(self) -> int:
        """What the node has on disk now beside blobs: metadata, journals, its identity."""
        blobs = {self._store / "blobs", self._store / "partial"}
        total = 0
        for directory, names, files in os.walk(self._data_dir):
            here = Path(directory)
            names[:] = [name for name in names if here / name not in blobs]
            total += sum((here / name).lstat().st_blocks * BLOCK_BYTES for name in files)
        return total

    def keep(self, name: str, hexes: frozenset[str], unless: frozenset[str] = frozenset()) -> None:
        """From now on none of these may go, unless all of those others are there."""
        with self._lock:
            self._guards.append(Guard(name, hexes, unless))

    @contextlib.contextmanager
    def coming(self, name: str, hexes: frozenset[str]) -> Iterator[None]:
        """Meanwhile none of these may go that comes meanwhile."""
        before = self.now()
        guard = Guard(name, hexes, since=before.whole)
        with self._lock:
            self._guards.append(guard)
        try:
            yield
        finally:
            with self._lock:
                self._guards.remove(guard)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            try:
                self._look()
            except OSError as error:
                # The node has ended, or its store is gone: whoever ended it stops the watch first.
                if not self._stop.is_set():
                    self.failure = f"{type(error).__name__}: {error}"
                return

    def _look(self) -> None:
        with self._lock:
            self.looks += 1
            found = self.now()
            if found.bytes > self.bytes_max or found.allocated > self.allocated_max:
                # A look takes a while, in which a small blob may go and another come: two do not both see that.
                again = self.now()
                self.bytes_max = max(self.bytes_max, min(found.bytes, again.bytes))
                self.allocated_max = max(self.allocated_max, min(found.allocated, again.allocated))
            for guard in self._guards:
                # One that moves from begun to whole may be in neither list of one look.
                if guard.look(found) and guard.look(again := self.now()):
                    lost = guard.seen - guard.lost - again.whole - again.begun
                    guard.lost |= lost
                    self.violations += [f"{guard.name}: {hexes[:12]} went" for hexes in sorted(lost)]


def taken(store: Path, open_files: Path) -> Taken:
    """What is in a store now. What goes away meanwhile takes nothing; begun ones are looked at first, since one that is
    begun needs the room of those that went before."""
    files: dict[str, os.stat_result] = {}
    begun, whole = set(), set()
    for name in _names(store / "partial"):
        with contextlib.suppress(FileNotFoundError):
            hexes = name.removeprefix("sha256-")
            files[hexes] = os.stat(store / "partial" / name / "data")
            begun.add(hexes)
    for name in _names(store / "blobs/sha256"):
        with contextlib.suppress(FileNotFoundError):
            files[name] = os.stat(store / "blobs/sha256" / name)
            whole.add(name)
    allocated = [stat.st_blocks for stat in files.values()]
    for name in _names(open_files):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(open_files / name)
            if target.startswith(str(store)) and target.endswith(" (deleted)"):
                allocated.append(os.stat(open_files / name).st_blocks)
    return Taken(frozenset(whole), frozenset(begun), sum(stat.st_size for stat in files.values()),
                 sum(max(0, blocks * BLOCK_BYTES - PAGE_BYTES) for blocks in allocated))


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []

"""Where devices keep their data in memory: on one machine's disk they would wait for each other's syncs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .host import Failure, Lab
from .node import NOBODY

MEMORY = Path("/dev/shm")
SHARE = 2
"""Of the memory that is free: one in so many may be taken."""


def available_bytes() -> int:
    """What may be taken."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        return min(shutil.disk_usage(MEMORY).free, free // SHARE)
    except (OSError, StopIteration):
        return 0


def directory(needed: int) -> Path:
    """Where so many bytes can be kept in memory; raises `Failure` if they cannot."""
    found = available_bytes()
    if needed > found:
        raise Failure(f"{needed >> 20} MiB of memory are needed for the devices' data, {found >> 20} MiB may be taken: "
                      "fewer devices or smaller images")
    return MEMORY


@contextlib.contextmanager
def small_disks(lab: Lab, mounts: list[tuple[Path, int]]) -> Iterator[None]:
    """Directories that are file systems of so many bytes each, in memory, for the nodes' user."""
    mounted: list[Path] = []
    try:
        for place, size in mounts:
            place.mkdir(parents=True, exist_ok=True)
            options = f"size={size},uid={NOBODY},gid={NOBODY},mode=0700"
            lab.run(["mount", "-t", "tmpfs", "-o", options, "lm-lab", str(place)])
            mounted.append(place)
        yield
    finally:
        for place in reversed(mounted):
            lab.run(["umount", "--lazy", str(place)])


def fill(place: Path) -> None:
    """Takes all room that is left."""
    with open(place / "filler", "wb") as filler:
        left = os.statvfs(place)
        os.posix_fallocate(filler.fileno(), 0, max(1, left.f_bavail * left.f_frsize))


def empty(place: Path) -> None:
    """Gives that room back."""
    (place / "filler").unlink(missing_ok=True)

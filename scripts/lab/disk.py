"""Disks of devices that lose power: what was not synced is gone.

Each is a file with an ext4 file system, mounted by way of a loop device. A power cut is the file system's own shutdown
(EXT4_IOC_SHUTDOWN without a flush of its log, which file systems' own crash tests use): from that moment nothing reaches the
file any more, neither data nor journal, and at the next mount the journal is replayed as after a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from .host import Failure, Lab, wait_until
from .node import NOBODY

EXT4_IOC_SHUTDOWN = 0x8004587D
FLUSH, NO_LOG_FLUSH = 0, 2
RELEASE_SECONDS_MAX = 5
"""From the unmount until nobody has it any more: as a rule commands of admins end within so long."""


class Disk:
    """One device's disk."""

    def __init__(self, lab: Lab, backing: Path, place: Path, size: int) -> None:
        self.lab, self.backing, self.place = lab, backing, place
        self.mounted = False
        with open(backing, "wb") as file:
            file.truncate(size)
        lab.run(["mkfs.ext4", "-q", "-m", "0", "-E", f"root_owner={NOBODY}:{NOBODY}", str(backing)])
        place.mkdir(parents=True, exist_ok=True)
        self.mount()
        (place / "lost+found").rmdir()

    def mount(self) -> None:
        """Mounts it, with whatever a power cut left in its journal."""
        self.lab.run(["mount", "-t", "ext4", "-o", "loop", str(self.backing), str(self.place)])
        self.mounted = True

    def unmount(self) -> None:
        """Unmounts it; whoever used it has ended, or is about to. Nothing is written any more."""
        if self.mounted:
            self._shut_down(FLUSH)
            self.lab.run(["umount", str(self.place)])
            self.mounted = False
        self._let_go()

    def cut(self) -> None:
        """The power is gone: of what was written, only what was synced remains, and what the kernel wrote by itself."""
        self._shut_down(NO_LOG_FLUSH)

    def _shut_down(self, how: int) -> None:
        place = os.open(self.place, os.O_RDONLY)
        try:
            # Has no effect on a file system that is shut down already.
            fcntl.ioctl(place, EXT4_IOC_SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(place)

    def _let_go(self) -> None:
        """Waits until nobody has it mounted. A process of somebody else's, in a mount namespace that was made meanwhile, may
        have it for as long as it likes: nothing is written any more, so what is on it is then taken to another disk."""
        try:
            wait_until(f"{self.place} is let go of", lambda: not self.lab.run(["losetup", "-j", str(self.backing)]).strip(),
                       RELEASE_SECONDS_MAX)
        except Failure:
            copy = self.backing.with_name(f"{self.backing.name}.copy")
            self.lab.run(["cp", "--sparse=always", str(self.backing), str(copy)])
            self.backing.unlink()
            copy.rename(self.backing)

    def check(self) -> str:
        """What fsck finds wrong with it, unmounted; nothing, as a rule."""
        status, said = self.lab.attempt(["e2fsck", "-fn", str(self.backing)])
        return said if status else ""

    def fill(self) -> None:
        """Takes all room that is left."""
        with open(self.place / "filler", "wb") as filler:
            left = os.statvfs(self.place)
            with contextlib.suppress(OSError):
                os.posix_fallocate(filler.fileno(), 0, max(1, left.f_bavail * left.f_frsize))

    def empty(self) -> None:
        """Gives that room back."""
        (self.place / "filler").unlink(missing_ok=True)


@contextlib.contextmanager
def shared_mounts(lab: Lab) -> Iterator[None]:
    """Lets mounts in the run's directory come and go in the mount namespaces of processes that run already."""
    lab.run(["mount", "--bind", str(lab.dir), str(lab.dir)])
    lab.run(["mount", "--make-rshared", str(lab.dir)])
    try:
        yield
    finally:
        lab.attempt(["umount", "--recursive", "--lazy", str(lab.dir)])

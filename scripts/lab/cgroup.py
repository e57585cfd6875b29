"""Control groups of a run, to give a process as little memory as a small device has. Versions 1 and 2 alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .host import Failure

ROOT = Path("/sys/fs/cgroup")
INTO = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


class Memory:
    """A group whose processes, their page cache and what the kernel keeps for them have so many bytes together."""

    def __init__(self, directory: Path, version: int) -> None:
        self.directory, self._version = directory, version

    @property
    def prefix(self) -> list[str]:
        """Words that have a command run in it."""
        return ["sh", "-c", INTO, str(self.directory)]

    def limit(self, size: int) -> None:
        """Sets the limit, in bytes."""
        self._write("memory.max" if self._version == 2 else "memory.limit_in_bytes", size)

    def killed(self) -> int:
        """Processes that the kernel ended for want of memory."""
        text = self._read("memory.events" if self._version == 2 else "memory.oom_control")
        fields = dict(line.split() for line in text.splitlines())
        return int(fields["oom_kill"])

    def held(self) -> dict[str, int]:
        """Bytes that the processes have of their own (`anon`) and that files of theirs take in the page cache (`file`)."""
        fields = dict(line.split() for line in self._read("memory.stat").splitlines())
        names = {"anon": "anon", "file": "file"} if self._version == 2 else {"anon": "total_rss", "file": "total_cache"}
        return {name: int(fields[field]) for name, field in names.items()}

    def _read(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="utf-8")

    def _write(self, name: str, value: int) -> None:
        (self.directory / name).write_text(str(value), encoding="utf-8")


@contextlib.contextmanager
def memory(name: str, size: int) -> Iterator[Memory]:
    """A group with a limit in bytes, for as long as processes in it are needed; they have to have ended before."""
    version = 2 if (ROOT / "cgroup.controllers").exists() else 1
    parent = ROOT if version == 2 else ROOT / "memory"
    if not (parent / "cgroup.procs").exists():
        raise Failure(f"no control group of memory can be made below {ROOT}")
    if version == 2:
        (parent / "cgroup.subtree_control").write_text("+memory", encoding="utf-8")
    group = Memory(parent / name, version)
    group.directory.mkdir(exist_ok=True)
    try:
        group.limit(size)
        yield group
    finally:
        group.directory.rmdir()

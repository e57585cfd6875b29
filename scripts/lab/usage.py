"""What processes cost: processor time and memory, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Usage:
    """Processor time so far, user and system, and the highest resident memory so far."""

    cpu_s: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu_s + other.cpu_s, self.peak_bytes + other.peak_bytes)


def of_session(leader: int) -> Usage:
    """All live processes of the session that `leader` leads, together: a daemon with its workers.

    Peaks are added although they need not have been at the same moment: an upper bound.
    """
    total = Usage()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != leader:
                continue
            # The fields after the command's name, which is in brackets and may hold anything.
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            lines = (entry / "status").read_text(encoding="utf-8").splitlines()
        except (ProcessLookupError, FileNotFoundError):
            continue
        peak_kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        total += Usage(cpu_s, peak_kib * 1024)
    return total


@dataclass(frozen=True)
class Resident:
    """Resident memory of one process, in bytes: all of it, what is its own, and what is mapped from files (the program
    above all); the highest of all since the start or `forget_peak`; and its threads."""

    total: int
    own: int
    mapped: int
    peak: int
    threads: int


def resident(pid: int) -> Resident:
    """What /proc says of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    total, own, mapped, peak = (int(fields[name].split()[0]) * 1024
                                for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM"))
    return Resident(total, own, mapped, peak, int(fields["Threads"]))


def forget_peak(pid: int) -> None:
    """Lets the kernel count a process's highest resident memory anew from now on (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def written(pid: int) -> int:
    """Bytes that a process has caused to be written to storage, so far (proc_pid_io(5)): to a disk, not to memory."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(": ", 1) for line in lines)["write_bytes"])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

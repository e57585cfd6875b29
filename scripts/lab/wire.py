"""What passed over an interface, and how fast at its fastest: the kernel's counter, read often.

As a program, `wire.py INTERFACE WAY` prints a line for each look: when it began and ended, by the monotonic clock, and
the bytes so far.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.01
"""Between two looks."""
WAYS = {"rx": 0, "tx": 8}
"""Columns of the bytes in /proc/net/dev."""
START_SECONDS_MAX = 10


@dataclass(frozen=True)
class Look:
    """The counter's value at some moment between two."""

    begun_s: float
    ended_s: float
    bytes: int


class Wire:
    """Looks at an interface of a namespace until it is told to stop."""

    def __init__(self, lab: object, site: object, ns: str, interface: str, way: str) -> None:
        from .host import wait_until  # here, since the program below needs nothing of the package

        self._lab, self._name = lab, f"wire-{ns}-{interface}"
        lab.spawn(self._name, site.within(ns, ["/usr/bin/python3", str(Path(__file__)), interface, way]))
        wait_until(f"{interface} is watched", self.looks, START_SECONDS_MAX)

    def looks(self) -> list[Look]:
        """All looks so far."""
        text = (self._lab.logs / f"{self._name}.log").read_text(encoding="utf-8")
        # The first line names the command; the last may be half written.
        lines = text[:text.rfind("\n") + 1].splitlines()[1:]
        return [Look(float(begun), float(ended), int(count)) for begun, ended, count in map(str.split, lines)]

    def stop(self) -> list[Look]:
        """All looks."""
        self._lab.stop(self._name)
        return self.looks()


def fastest(looks: list[Look], window_s: float) -> float:
    """Bytes a second in the window with the most of them, of all that are just so long or a look longer.

    A window begins before its first look and ends after its last, so that a late look makes nothing seem faster.
    """
    highest, first = 0.0, 0
    for look in looks:
        while first + 1 < len(looks) and look.ended_s - looks[first + 1].begun_s >= window_s:
            first += 1
        span = look.ended_s - looks[first].begun_s
        if span >= window_s:
            highest = max(highest, (look.bytes - looks[first].bytes) / span)
    return highest


def main(interface: str, way: str) -> None:
    """The program."""
    due = time.monotonic()
    while True:
        begun = time.monotonic()
        text = Path("/proc/self/net/dev").read_text(encoding="utf-8")
        ended = time.monotonic()
        fields = next(line.partition(":")[2] for line in text.splitlines() if line.strip().startswith(f"{interface}:"))
        print(begun, ended, fields.split()[WAYS[way]], flush=True)
        due = max(due + LOOK_S, ended)
        time.sleep(max(due - time.monotonic(), 0))


if __name__ == "__main__":
    main(*sys.argv[1:])

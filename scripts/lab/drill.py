"""Does what a plan says to real nodes, and writes down when they had what they were told to get.

Invariant: nothing here helps a node: it is started, told to pull, killed and cut off, and that is all.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import memory
from .host import Failure, Lab, say
from .link import APART, SWITCH, ModelledSite
from .node import Node
from .plan import REPOSITORY, Plan, Pushed
from .registry import HOST, Registry

PULLER = Path(__file__).with_name("puller.py")
READY_SECONDS_MAX = 40
"""Deadline of all runtimes to be ready before anything is told."""
LEAD_S = 0.3
"""From the moment at which all is ready to the plan's zero."""
LOOK_S = 0.5
"""Longest time between two looks at whether all is done."""


@dataclass
class Wanted:
    """A pull that a device was told of."""

    device: int
    release: int
    image: int
    told_s: float
    done_s: float | None = None


@dataclass
class Device:
    """A device: its node, and its runtime."""

    number: int
    ns: str
    node: Node
    up: bool = False
    runtime: subprocess.Popen | None = None
    waiting: list[int] = field(default_factory=list)
    """Pulls that its runtime is to be told of once it is ready; by their number in the drill."""


class Drill:
    """All devices of a site, on the plan's way."""

    def __init__(self, lab: Lab, site: ModelledSite, plan: Plan, served: Registry, pushed: list[Pushed],
                 binary: Path) -> None:
        self.lab, self.site, self.plan, self.pushed = lab, site, plan, pushed
        self.devices = [Device(number, ns, Node(lab, site, ns, binary, served))
                        for number, ns in enumerate(site.devices)]
        self.pulls: list[Wanted] = []
        self.failures: list[str] = []
        self.late_s = 0.0
        self.zero = 0.0
        self._selector = selectors.DefaultSelector()
        self._ready: set[int] = set()

    def begin(self) -> None:
        """All nodes start and meet, and their runtimes are ready."""
        # One after the other: of two that start at the same moment each may miss the other's first query by mDNS.
        for device in self.devices:
            device.node.start()
            device.up = True
        for device in self.devices:
            device.node.meet(len(self.devices) - 1)
        for device in self.devices:
            self._start_runtime(device)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while len(self._ready) < len(self.devices):
            if time.monotonic() > deadline:
                raise Failure(f"only {len(self._ready)} runtimes are ready after {READY_SECONDS_MAX} s")
            self._listen(LOOK_S)
        self.zero = time.monotonic() + LEAD_S

    def now_s(self) -> float:
        """The plan's clock."""
        return time.monotonic() - self.zero

    def play(self) -> None:
        """Does all steps, each in its time, until everybody who can has what was asked for."""
        steps = list(self.plan.steps)
        while self.now_s() < self.plan.limit_s:
            while steps and steps[0]["at_s"] <= self.now_s():
                step = steps.pop(0)
                getattr(self, f"_{step['act']}")(step)
                self.late_s = max(self.late_s, self.now_s() - step["at_s"])
            if self._is_over(steps):
                return
            until = steps[0]["at_s"] - self.now_s() if steps else LOOK_S
            self._listen(max(0.0, min(until, LOOK_S)))
        say(f"   the limit of {self.plan.limit_s:.0f} s has passed")

    def _is_over(self, steps: list[dict]) -> bool:
        """Whether nothing is awaited any more."""
        if any(step["act"] in ("tell", "start") for step in steps):
            return False
        return all(pull.done_s is not None for pull in self.pulls if self.devices[pull.device].up)

    def origin_bytes(self) -> int:
        """What the nodes that run took from the registry, as they count it."""
        return sum(device.node.status()["bytes_from_origin"] for device in self.devices if device.up)

    # Steps, by their acts.

    def _tell(self, step: dict) -> None:
        self.pulls.append(Wanted(step["device"], step["release"], step["image"], self.now_s()))
        device = self.devices[step["device"]]
        device.waiting.append(len(self.pulls) - 1)
        self._pass_on(device)

    def _cut(self, _: dict) -> None:
        self.site.cut_uplink()

    def _mend(self, _: dict) -> None:
        self.site.mend_uplink()

    def _silence(self, _: dict) -> None:
        os.kill(self.lab.pid("registry"), signal.SIGSTOP)

    def _speak(self, _: dict) -> None:
        os.kill(self.lab.pid("registry"), signal.SIGCONT)

    def _crash(self, step: dict) -> None:
        """Power: the link is gone first, so that the kernel tells nobody that the process is."""
        for device in self._named(step):
            self.site.unplug(device.ns)
            self.lab.kill(device.node.name)
            self._lose_runtime(device)

    def _stop(self, step: dict) -> None:
        for device in self._named(step):
            os.kill(self.lab.pid(device.node.name), signal.SIGTERM)
            self._lose_runtime(device)

    def _start(self, step: dict) -> None:
        for device in self._named(step):
            self.lab.stop(device.node.name)  # it may still be stopping
            self.site.plug(device.ns)
            device.node.launch()
            device.up = True
            self._start_runtime(device)

    def _part(self, step: dict) -> None:
        for device in self._named(step):
            self.site.move(device.ns, APART)

    def _heal(self, step: dict) -> None:
        for device in self._named(step):
            self.site.move(device.ns, SWITCH)

    def _fill(self, step: dict) -> None:
        for device in self._named(step):
            memory.fill(device.node.data_dir)

    def _empty(self, step: dict) -> None:
        for device in self._named(step):
            memory.empty(device.node.data_dir)

    def _named(self, step: dict) -> list[Device]:
        return [self.devices[number] for number in step["devices"]]

    # The runtimes.

    def _start_runtime(self, device: Device) -> None:
        argv = self.site.within(device.ns, [sys.executable, str(PULLER)])
        device.runtime = self.lab.spawn(f"{device.ns}-runtime", argv, streams=(subprocess.PIPE, subprocess.PIPE))
        device.waiting = [number for number, pull in enumerate(self.pulls)
                          if pull.device == device.number and pull.done_s is None]
        self._selector.register(device.runtime.stdout, selectors.EVENT_READ, device)

    def _lose_runtime(self, device: Device) -> None:
        device.up = False
        self._ready.discard(device.number)
        if device.runtime:
            self._selector.unregister(device.runtime.stdout)
            device.runtime = None
            self.lab.kill(f"{device.ns}-runtime")

    def _pass_on(self, device: Device) -> None:
        """Tells a runtime of the pulls that wait for it, if it is ready."""
        if device.number not in self._ready or device.runtime is None:
            return
        for number in device.waiting:
            image = self.pushed[self.pulls[number].image]
            told = {"pull": number, "registry": HOST, "repository": REPOSITORY, "manifest": image.manifest,
                    "blobs": image.blobs}
            device.runtime.stdin.write(json.dumps(told).encode() + b"\n")
            device.runtime.stdin.flush()
        device.waiting = []

    def _listen(self, seconds: float) -> None:
        """Hears what runtimes say, for so long at most."""
        for key, _ in self._selector.select(seconds):
            device: Device = key.data
            line = key.fileobj.readline()
            if not line:
                self._selector.unregister(key.fileobj)
                device.runtime = None
                self.failures.append(f"{self.plan.devices[device.number]}: its runtime ended: "
                                     f"{self.lab.last_line(f'{device.ns}-runtime')}")
                continue
            said = json.loads(line)
            if "ready" in said:
                self._ready.add(device.number)
                self._pass_on(device)
            else:
                self.pulls[said["pull"]].done_s = said["done"] - self.zero

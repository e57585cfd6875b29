"""What can go wrong on a site of real nodes: a schedule out of a seed, and what each fault is.

Invariant: a schedule follows from its seed, the number of devices and the time alone, so that a seed replays it. A device has
one fault at a time; the first device is never killed nor cut off from power, so that what leaks in a process has time to.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .disk import Disk
from .host import Failure, Lab, say, wait_until
from .net import ROUTER_IP, Site
from .node import Node

YEAR_S = 365 * 86_400
GAP_S = (0.5, 4.0)
"""Between the beginnings of two faults."""
RECOVERY_S = 3.0
"""After a fault a device has so long before its next one."""
QUIET_S = 5.0
"""At the end of the time nothing new begins."""
OTHER_ADDRESS = 100
"""What is added to a device's address when it changes."""
STOP_SECONDS_MAX = 30


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how likely it is beside the others, how long it lasts, and whom it is for."""

    weight: int
    lasts_s: tuple[float, float]
    of_site: bool = False
    ends_process: bool = False


KINDS = {
    "kill": Kind(5, (0.2, 3.0), ends_process=True),
    "power cut": Kind(5, (0.2, 3.0), ends_process=True),
    "disk full": Kind(3, (2.0, 12.0)),
    "damaged blob": Kind(4, (0.0, 0.0)),
    "damaged partial": Kind(2, (0.0, 0.0)),
    "damaged metadata": Kind(1, (0.2, 1.0), ends_process=True),
    "clock": Kind(4, (3.0, 20.0)),
    "interface down": Kind(4, (0.5, 10.0)),
    "address": Kind(2, (5.0, 20.0)),
    "names": Kind(3, (2.0, 12.0)),
    "origin cut": Kind(3, (1.0, 8.0), of_site=True),
    "origin silent": Kind(2, (1.0, 8.0), of_site=True),
    "origin restart": Kind(2, (0.2, 2.0), of_site=True),
}


@dataclass(frozen=True)
class Fault:
    """A fault of the schedule."""

    at_s: float
    lasts_s: float
    kind: str
    device: int | None
    dice: int
    """Of what the kind leaves open, such as which bit is flipped."""


def schedule(seed: int, devices: int, seconds: float) -> list[Fault]:
    """All faults, in order. Each kind is among the first ones, so that a short run has all of them."""
    dice = random.Random(f"faults {seed} {devices}")
    missing = list(KINDS)
    dice.shuffle(missing)
    busy: dict[int | None, float] = {}
    faults, at = [], 1.0
    while at < seconds - QUIET_S:
        kind = missing[0] if missing else dice.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
        lasts = dice.uniform(*KINDS[kind].lasts_s)
        candidates = [None] if KINDS[kind].of_site else list(range(KINDS[kind].ends_process, devices))
        free = [device for device in candidates if busy.get(device, 0.0) <= at]
        if free:
            device = dice.choice(free)
            busy[device] = at + lasts + RECOVERY_S
            faults.append(Fault(at, lasts, kind, device, dice.getrandbits(32)))
            missing = [other for other in missing if other != kind]
        at += dice.uniform(*GAP_S)
    return faults


def shared_object(pattern: str) -> Path:
    """A library of the distribution that processes are given; raises `Failure` without it."""
    found = sorted([*Path("/usr/lib").glob(f"*/{pattern}"), *Path("/usr/lib").glob(f"*/faketime/{pattern}")])
    if not found:
        raise Failure(f"no {pattern} in /usr/lib")
    return found[0]


class Device:
    """A device: its node, its disk, its clock and its view of names."""

    def __init__(self, lab: Lab, site: Site, ns: str, node: Node, disk: Disk, hosts: Path) -> None:
        self.lab, self.site, self.ns, self.node, self.disk, self.hosts = lab, site, ns, node, disk, hosts
        self.known_hosts = hosts.read_text(encoding="utf-8")
        self.clock = node.dir / "clock"
        self.set_clock(0)
        node.environment = {"LD_PRELOAD": str(shared_object("libfaketimeMT.so.1")), "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                            "FAKETIME_NO_CACHE": "1", "FAKETIME_DISABLE_SHM": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        self.starts = 0
        self.damaged: set[str] = set()
        """Blobs that this test damaged."""

    def preload(self, more: Path) -> None:
        """Gives the node's process a further library."""
        self.node.environment["LD_PRELOAD"] += f":{more}"

    def set_clock(self, offset_s: int) -> None:
        """Sets the wall clock of the device's node, and of it alone: it reads the file each time that it is asked."""
        growing = self.clock.with_suffix(".new")
        growing.write_text(f"{offset_s:+d}\n", encoding="utf-8")
        growing.chmod(0o644)
        growing.rename(self.clock)

    def know_names(self, known: bool) -> None:
        """Whether the registry's name can be looked up. Written in place: it is mounted over /etc/hosts."""
        self.hosts.write_text(self.known_hosts if known else "127.0.0.1 localhost\n", encoding="utf-8")

    def ip(self, *commands: str) -> None:
        """Changes something of the device's network."""
        self.lab.run(["ip", "-n", self.ns, "-batch", "-"], stdin="\n".join(commands) + "\n")

    def address(self, other: bool) -> None:
        """Gives the device its own address, or another one."""
        own = self.site.address(self.ns)
        host = int(own.rpartition(".")[2]) + (OTHER_ADDRESS if other else 0)
        self.ip("addr flush dev eth0 scope global", f"addr add 10.117.0.{host}/24 dev eth0",
                f"route replace default via {ROUTER_IP}")

    def link(self, up: bool) -> None:
        """Takes the interface up or down."""
        self.ip(f"link set eth0 {'up' if up else 'down'}", *([f"route replace default via {ROUTER_IP}"] if up else []))

    def pid(self) -> int:
        """Of the node's process: what was spawned became it."""
        return self.lab.pid(self.node.name)

    def start(self) -> None:
        """Starts the node, and does not wait for it."""
        self.node.launch()
        self.starts += 1

    def kill(self) -> None:
        """Kills the node."""
        self.lab.kill(self.node.name)

    def cut_power(self) -> tuple[int, list[str]]:
        """The node stops in the middle of whatever it does; of its disk remains what was synced. Returns how many blobs it
        had said that it holds and still has, and those that it has no more: what was once said must survive."""
        try:
            said = self.node.held()
        except (Failure, ValueError):
            said = set()  # it was not up yet, or is too busy to say
        os.kill(self.pid(), signal.SIGSTOP)
        # What went meanwhile went on purpose.
        held = {digest for digest in said if self._blob(digest).exists()} - self.damaged
        self.disk.cut()
        self.kill()
        wait_until(f"{self.ns} lets go of its disk", self.unmounted, STOP_SECONDS_MAX)
        self.disk.mount()
        lost = sorted(digest for digest in held if not self._survived(digest))
        return len(held) - len(lost), lost

    def _blob(self, digest: str) -> Path:
        return self.node.data_dir / "store/blobs/sha256" / digest.removeprefix("sha256:")

    def _survived(self, digest: str) -> bool:
        """Whether a blob is whole on the disk, under its name or just before it was given that."""
        before = self.node.data_dir / "store/partial" / digest.replace(":", "-") / "data"
        return any(file.exists() and f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == digest
                   for file in (self._blob(digest), before))

    def unmounted(self) -> bool:
        try:
            self.disk.unmount()
        except Failure:
            return False
        return True

    def damage(self, pattern: str, dice: random.Random) -> bool:
        """Flips a bit of a random file; says whether there was one."""
        files = sorted(file for file in self.node.data_dir.glob(pattern) if file.is_file() and file.stat().st_size)
        if not files:
            return False
        chosen = dice.choice(files)
        self.damaged.add(f"sha256:{chosen.name}")
        self.damaged.add(chosen.parent.name.replace("-", ":"))
        try:
            with open(chosen, "r+b") as file:
                at = dice.randrange(os.fstat(file.fileno()).st_size)
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 1 << dice.randrange(8)]))
        except (FileNotFoundError, IndexError):
            return False
        return True


class Injector:
    """Does what the schedule says."""

    def __init__(self, lab: Lab, site: Site, devices: list[Device], restart_origin: object) -> None:
        self.lab, self.site, self.devices, self.restart_origin = lab, site, devices, restart_origin
        self.done: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.survived = 0
        """Blobs that nodes had said that they hold when their power was cut, and that were still there."""
        self.lost: list[str] = []

    def play(self, faults: list[Fault], seconds: float, look: object) -> None:
        """Plays all faults in their time; `look` is called in between, about once a second."""
        begun = time.monotonic()
        running: list[tuple[float, Iterator[None], Fault]] = []
        left = list(faults)
        while (now := time.monotonic() - begun) < seconds or running:
            for entry in [entry for entry in running if entry[0] <= now]:
                running.remove(entry)
                next(entry[1], None)
            # On a machine that is late, a fault may come due while the device's node is still stopped by the one before: it waits
            # until that one has ended, as the schedule meant it.
            stopped = {entry[2].device for entry in running if KINDS[entry[2].kind].ends_process}
            while left and left[0].at_s <= now and left[0].device not in stopped:
                fault = left.pop(0)
                steps = getattr(self, f"_{fault.kind.replace(' ', '_')}")(fault)
                say(f"   {now:7.1f} s  {fault.kind}{'' if fault.device is None else f' on {fault.device + 1}'}"
                    f"{f' for {fault.lasts_s:.1f} s' if fault.lasts_s else ''}")
                if next(steps, False) is None:
                    running.append((now + fault.lasts_s, steps, fault))
                    if KINDS[fault.kind].ends_process:
                        stopped.add(fault.device)
                self.done[fault.kind] += 1
            look()
            soon = [entry[0] for entry in running] + [fault.at_s for fault in left[:1]] + [seconds]
            time.sleep(max(0.0, min(1.0, min(soon) - (time.monotonic() - begun))))

    # Each fault is a generator: up to its `yield` it begins, after it it ends. One that has none has no end.

    def _kill(self, fault: Fault) -> Iterator[None]:
        device = self.devices[fault.device]
        device.kill()
        yield
        device.start()

    def _power_cut(self, fault: Fault) -> Iterator[None]:
        device = self.devices[fault.device]
        # Nobody is told: what was connected finds out by itself.
        device.link(up=False)
        survived, lost = device.cut_power()
        self.survived += survived
        self.lost += lost
        if lost:
            say(f"   LOST {lost}")
        yield
        device.link(up=True)
        device.start()

    def _disk_full(self, fault: Fault) -> Iterator[None]:
        device = self.devices[fault.device]
        device.disk.fill()
        yield
        device.disk.empty()

    def _damaged_blob(self, fault: Fault) -> Iterator[None]:
        self.devices[fault.device].damage("store/blobs/*/*", random.Random(fault.dice))
        yield from ()

    def _damaged_partial(self, fault: Fault) -> Iterator[None]:
        self.devices[fault.device].damage("store/partial/*/*", random.Random(fault.dice))
        yield from ()

    def _damaged_metadata(self, fault: Fault) -> Iterator[None]:
        device = self.devices[fault.device]
        device.kill()
        device.damage("store/meta.redb", random.Random(fault.dice))
        yield
        device.start()

    def _clock(self, fault: Fault) -> Iterator[None]:
        device = self.devices[fault.device]
        dice = random.Random(fault.dice)
        device.set_clock(dice.choice((-1, 1)) * dice.randrange(YEAR_S, 20 * YEAR_S))
        yield
        device.set_clock(0)

    def _interface_down(self, fault: Fault) -> Iterator[None]:
        self.devices[fault.device].link(up=False)
        yield
        self.devices[fault.device].link(up=True)

    def _address(self, fault: Fault) -> Iterator[None]:
        self.devices[fault.device].address(other=True)
        yield
        self.devices[fault.device].address(other=False)

    def _names(self, fault: Fault) -> Iterator[None]:
        self.devices[fault.device].know_names(False)
        yield
        self.devices[fault.device].know_names(True)

    def _origin_cut(self, _: Fault) -> Iterator[None]:
        self.site.cut_uplink()
        yield
        self.site.mend_uplink()

    def _origin_silent(self, _: Fault) -> Iterator[None]:
        os.kill(self.lab.pid("registry"), signal.SIGSTOP)
        yield
        os.kill(self.lab.pid("registry"), signal.SIGCONT)

    def _origin_restart(self, _: Fault) -> Iterator[None]:
        self.lab.kill("registry")
        yield
        self.restart_origin()

"""A site whose links may have latency, jitter and loss: by the simulator's own model of a link.

The kernel gives a link its rate. Where it has to have latency, jitter or loss too, both ends are TAP devices instead of
a veth pair, and a process of the simulator passes the frames between them. Frames keep the kernel's note on how they are
to be cut (IFF_VNET_HDR), so that segments stay whole and the counters count what the sender sent, as on a veth pair.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from .host import Lab
from .net import Site

TUN = "/dev/net/tun"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
SWITCH, APART = "br0", "br1"
"""The LAN's switch, and one that is connected with nothing else."""


@dataclass(frozen=True)
class Link:
    """How a link is: rate in bits a second, and the rest as `layermesh-sim wire` takes it."""

    rate: int
    latency_us: int
    jitter_us: int
    loss_per_mille: int
    modelled: bool
    """Whether the simulator's model passes its frames."""


class ModelledSite(Site):
    """A site with such links."""

    def __init__(self, lab: Lab, simulator: Path, uplink: Link, lan: Link, seed: int) -> None:
        super().__init__(lab)
        self.simulator, self.uplink, self.lan_link, self.seed = simulator, uplink, lan, seed
        self._wires = 0

    def __enter__(self) -> ModelledSite:
        super().__enter__()
        self._ip(f"link add {APART} type bridge forward_delay 0", f"link set {APART} up", ns=self.lan)
        return self

    def _join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        link = self.uplink if one[1] == "up0" else self.lan_link
        if not link.modelled:
            super()._join(one, other)
            return
        self._wires += 1
        taps = [self._tap(end, f"{self.lab.prefix}{self._wires}{side}") for end, side in ((one, "a"), (other, "b"))]
        argv = [str(self.simulator), "wire", "--latency-us", str(link.latency_us), "--jitter-us", str(link.jitter_us),
                "--loss-per-mille", str(link.loss_per_mille), "--seed", str(self.seed + self._wires)]
        self.lab.spawn(f"wire-{self._wires}", argv, streams=(taps[0], taps[1]))
        for tap in taps:
            os.close(tap)  # the process has its own

    def _tap(self, end: tuple[str, str], name: str) -> int:
        """Makes a TAP device that ends up in a namespace by another name; returns the file of its frames."""
        ns, interface = end
        tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        self._ip(f"link set {name} netns {ns} name {interface}")
        return tap

    def shape(self) -> None:
        """Gives the uplink and the devices' links their rates."""
        self._limit(self.wan, "eth0", self.uplink.rate)
        for number, device in enumerate(self.devices, 1):
            self._limit(device, "eth0", self.lan_link.rate)
            self._limit(self.lan, f"p{number}", self.lan_link.rate)

    def _limit(self, ns: str, interface: str, rate: int) -> None:
        self._shape_to(ns, interface, f"{rate}bit")

    def unplug(self, device: str) -> None:
        """The device's link is down, as seen from the switch."""
        self._port(device, "down")

    def plug(self, device: str) -> None:
        """It is up."""
        self._port(device, "up")

    def move(self, device: str, switch: str) -> None:
        """The device is at another switch from now on."""
        self._port(device, f"master {switch}")

    def _port(self, device: str, change: str) -> None:
        self._ip(f"link set p{self.devices.index(device) + 1} {change}", ns=self.lan)

"""A site out of network namespaces: devices on one bridge, and one uplink to a namespace that stands for the WAN.

    <prefix>dev1 … devN ── bridge in <prefix>lan ── uplink (shaped towards the LAN, counted, can be cut) ── <prefix>wan

A device has one interface `eth0` in 10.117.0.0/24 and its default route through the LAN's namespace, as behind a
home router. Bytes are what the kernel counts on the interfaces: TLS and all headers included, the latter once for
each segment that the sender hands over, which is up to 64 KiB. (Packets of 1,500 bytes would add 4.5 % to them.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .host import Lab, wait_until

DEVICES_MAX = 200
"""What the LAN's /24 holds beside the router."""
ROUTER_IP = "10.117.0.254"
WAN_IP = "10.118.0.2"
LAPTOP_IP = "10.117.0.253"
BIND_SCRIPT = ('resolv=$1; hosts=$2; shift 2; mount --bind "$resolv" /etc/resolv.conf && '
               '{ [ -z "$hosts" ] || mount --bind "$hosts" /etc/hosts; } && exec "$@"')
NO_NAME_SERVER = "nameserver 127.0.0.1\n"
"""Of all namespaces. Nothing listens there, so that a lookup fails at once: Docker looks up registries' names before each
pull, and waits for ten seconds for a name server that is out of reach."""


class Site:
    """The namespaces of one lab. Use it as a context manager: they are deleted at the end, with all in them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.lan = f"{lab.prefix}lan"
        self.wan = f"{lab.prefix}wan"
        self.devices: list[str] = []
        self._resolv = lab.dir / "resolv.conf"

    def __enter__(self) -> Site:
        self._delete()
        self._resolv.write_text(NO_NAME_SERVER, encoding="utf-8")
        self._ip(f"netns add {self.lan}", f"netns add {self.wan}")
        self._ip("link set lo up", "link add br0 type bridge forward_delay 0", f"addr add {ROUTER_IP}/24 dev br0",
                 "link set br0 up", ns=self.lan)
        self._join((self.lan, "up0"), (self.wan, "eth0"))
        self._ip("addr add 10.118.0.1/30 dev up0", "link set up0 up", ns=self.lan)
        self._ip("link set lo up", f"addr add {WAN_IP}/30 dev eth0", "link set eth0 up",
                 "route add default via 10.118.0.1", ns=self.wan)
        self.lab.run(self.within(self.lan, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]))
        return self

    def __exit__(self, *_: object) -> None:
        self._delete()

    def _ip(self, *commands: str, ns: str | None = None) -> None:
        self.lab.run(["ip", *(["-n", ns] if ns else []), "-batch", "-"], stdin="\n".join(commands) + "\n")

    def _join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """Makes a link between two namespaces; each end is a namespace and the interface's name there."""
        self._ip(f"link add {one[1]} type veth peer name {other[1]} netns {other[0]}", ns=one[0])

    def _delete(self) -> None:
        """Ends what runs in the namespaces of this prefix, this run's or a killed run's, and deletes them."""
        listed = self.lab.run(["ip", "netns", "list"]).split("\n")
        for ns in [line.split()[0] for line in listed if line.startswith(self.lab.prefix)]:
            def ended(ns: str = ns) -> bool:
                pids = [int(pid) for pid in self.lab.run(["ip", "netns", "pids", ns]).split()]
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                return not pids
            wait_until(f"no process left in {ns}", ended, 10)
            self.lab.run(["ip", "netns", "delete", ns])

    def within(self, ns: str, argv: Sequence[str], hosts: Path | None = None) -> list[str]:
        """The command line that runs `argv` in a namespace, with mounts of its own, `hosts` as /etc/hosts and no name
        server.

        `nsenter`, since `ip netns exec` mounts /sys anew, which hides the control groups from container runtimes.
        """
        line = ["nsenter", f"--net=/run/netns/{ns}", "unshare", "--mount"]
        return [*line, "sh", "-c", BIND_SCRIPT, "sh", str(self._resolv), str(hosts or ""), *argv]

    def add_device(self) -> str:
        """Adds the next device to the LAN and returns the name of its namespace."""
        number = len(self.devices) + 1
        assert number <= DEVICES_MAX, "the LAN is full"
        ns = f"{self.lab.prefix}dev{number}"
        self._ip(f"netns add {ns}")
        self._join((ns, "eth0"), (self.lan, f"p{number}"))
        self._ip("link set lo up", f"addr add 10.117.0.{number}/24 dev eth0", "link set eth0 up", ns=ns)
        self._ip(f"link set p{number} master br0 up", ns=self.lan)
        self._ip(f"route add default via {ROUTER_IP}", ns=ns)
        self.devices.append(ns)
        return ns

    def add_laptop(self) -> str:
        """Adds an admin's machine and returns its namespace: it has an uplink of its own, and is not on the LAN until
        it is plugged in."""
        ns = f"{self.lab.prefix}laptop"
        self._ip(f"netns add {ns}")
        self._join((ns, "eth0"), (self.lan, "laptop"))
        self._join((ns, "own"), (self.wan, "laptop"))
        self._ip("link set lo up", f"addr add {LAPTOP_IP}/24 dev eth0", "link set eth0 up",
                 "addr add 10.118.0.6/30 dev own", "link set own up", f"route add {WAN_IP} via 10.118.0.5", ns=ns)
        self._ip("addr add 10.118.0.5/30 dev laptop", "link set laptop up", ns=self.wan)
        self._ip("link set laptop master br0", ns=self.lan)
        return ns

    def plug_laptop(self, plugged: bool) -> None:
        """Plugs the admin's machine into the LAN, or unplugs it."""
        self._ip(f"link set laptop {'up' if plugged else 'down'}", ns=self.lan)

    def address(self, device: str) -> str:
        """The device's address on the LAN."""
        return f"10.117.0.{self.devices.index(device) + 1}"

    def shape_device(self, device: str, rate_mbit: int) -> None:
        """Limits the device's link to the LAN, each way."""
        port = f"p{self.devices.index(device) + 1}"
        for ns, interface in ((device, "eth0"), (self.lan, port)):
            self._shape(ns, interface, rate_mbit)

    def shape_uplink(self, rate_mbit: int) -> None:
        """Limits what comes from the WAN."""
        self._shape(self.wan, "eth0", rate_mbit)

    def _shape(self, ns: str, interface: str, rate_mbit: int) -> None:
        self._shape_to(ns, interface, f"{rate_mbit}mbit")

    def _shape_to(self, ns: str, interface: str, rate: str) -> None:
        """Limits what an interface sends. The burst holds whole 64 KiB segments, so that the link does not split
        them and the counters count what the sender sent."""
        self.lab.run(["tc", "-n", ns, "qdisc", "add", "dev", interface, "root", "tbf", "rate", rate,
                      "burst", "256kb", "latency", "200ms"])

    def uplink_bytes(self) -> int:
        """Bytes that came over the uplink to the LAN since the site was built."""
        return self.interface_bytes(self.lan, "up0")["rx"]

    def cut_uplink(self) -> None:
        """Takes the LAN's side of the uplink down; devices are told "unreachable" by their router."""
        self._ip("link set up0 down", ns=self.lan)

    def mend_uplink(self) -> None:
        """Takes it up again."""
        self._ip("link set up0 up", ns=self.lan)

    def interface_bytes(self, ns: str, interface: str) -> dict[str, int]:
        """Bytes received (`rx`) and sent (`tx`) by an interface."""
        return {way: counts["bytes"] for way, counts in self.interface_counts(ns, interface).items()}

    def interface_counts(self, ns: str, interface: str) -> dict[str, dict[str, int]]:
        """What the kernel counts of what an interface received (`rx`) and sent (`tx`): "bytes", "packets" and more."""
        shown = json.loads(self.lab.run(["ip", "-n", ns, "-s", "-j", "link", "show", interface]))[0]["stats64"]
        return {way: shown[way] for way in ("rx", "tx")}


def overlay_works(directory: Path) -> bool:
    """Whether the kernel mounts an overlay whose upper layer is in `directory`: not where that is an overlay itself."""
    parts = {part: directory / f"overlay-probe/{part}" for part in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir(parents=True, exist_ok=True)
    options = ",".join(f"{part}dir={parts[part]}" for part in ("lower", "upper", "work"))
    done = subprocess.run(["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options,
                           str(parts["merged"])], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0

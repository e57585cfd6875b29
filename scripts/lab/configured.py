"""A device whose container runtimes are configured at the usual places, as the distribution's packages have them.

The configuration is a copy of this machine's, mounted over it for the commands that run on the device, and only for
those. So setup, doctor and the runtimes see `/etc/containerd` and the like as on any machine, and nothing of this
machine's changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

from . import runtimes
from .host import Lab, install_missing, wait_until
from .net import Site, overlay_works

NEEDS = {**runtimes.NEEDS, "docker-registry": "docker-registry", "htpasswd": "apache2-utils", "openssl": "openssl",
         "mmdebstrap": "mmdebstrap", "curl": "curl", "ip": "iproute2", "sysctl": "procps"}
CONFIGURED = ("/etc/containerd", "/etc/docker", "/etc/containers")
"""Directories of the runtimes' configuration."""
STATE = ("/etc/cni", "/var/lib/containerd", "/var/lib/layermesh-setup")
"""Directories that the device has for itself, empty."""
BIND = ('root=$1; shift; for dir in etc/containerd etc/docker etc/containers etc/cni var/lib/containerd '
        'var/lib/layermesh-setup; do mount --bind "$root/$dir" "/$dir" || exit 1; done; exec "$@"')
"""Runs a command that sees the device's configuration at the usual places."""
GRPC = Path("/usr/lib/python3/dist-packages/grpc")
"""What the package python3-grpcio brings."""
CRI_PULL = """
import sys
import grpc
def field(number, value):
    return bytes([number << 3 | 2, len(value)]) + value
request = field(1, field(1, sys.argv[2].encode()))
with grpc.insecure_channel("unix://" + sys.argv[1]) as channel:
    pull = channel.unary_unary("/runtime.v1.ImageService/PullImage", lambda bytes: bytes, lambda bytes: bytes)
    print(pull(request, timeout=120, wait_for_ready=True)[2:].decode())
"""
"""What kubelet asks: PullImageRequest with an ImageSpec with a name, as protocol buffers."""


def install() -> None:
    """Installs what is missing."""
    install_missing(NEEDS)
    if not GRPC.exists():
        install_missing({"no-command-of-it": "python3-grpcio"})


class Machine:
    """A device's configuration, and commands that see it as theirs."""

    def __init__(self, lab: Lab, site: Site, device: str, binary: Path) -> None:
        self.lab, self.site, self.device, self.binary = lab, site, device, binary
        self.root = lab.dir / "machine"
        for directory in CONFIGURED:
            source, copy = Path(directory), self.root / directory.lstrip("/")
            if source.exists():
                shutil.copytree(source, copy, symlinks=True)
            copy.mkdir(parents=True, exist_ok=True)
        for empty in STATE:
            (self.root / empty.lstrip("/")).mkdir(parents=True)
        # Mounts need something to be mounted over.
        for directory in (*CONFIGURED, *STATE):
            Path(directory).mkdir(parents=True, exist_ok=True)
        config = self.root / "etc/containerd/config.toml"
        if config.exists() and not overlay_works(lab.dir):
            section = '[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n'
            config.write_text(config.read_text(encoding="utf-8") + section, encoding="utf-8")

    def within(self, *argv: str, hosts: Path | None = None) -> list[str]:
        """The command line that runs `argv` on the device with its configuration, and `hosts` as /etc/hosts."""
        return self.site.within(self.device, ["sh", "-c", BIND, "sh", str(self.root), *argv], hosts)

    def run(self, *argv: str, seconds: float = 60, **env: str) -> str:
        """Runs a command and returns what it prints."""
        return self.lab.run(self.within(*argv), seconds=seconds, log="machine", env=self.lab.environment(**env))

    def setup(self, runtime: str, *options: str) -> dict:
        """Runs `layermesh setup` and returns what it says."""
        return json.loads(self.run(str(self.binary), "setup", runtime, "--json", *options))

    def photograph(self) -> dict[str, tuple]:
        """Every file and directory of the configuration and of setup's records, with mode, owner and content."""
        seen = {}
        places = [self.root / place.lstrip("/") for place in (*CONFIGURED, "/var/lib/layermesh-setup")]
        for path in sorted(path for place in places for path in place.rglob("*")):
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            seen[str(path.relative_to(self.root))] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
        return seen


class Containerd:
    """containerd with its Kubernetes interface, as the package has it but for the place of its state."""

    name, image_registry = "containerd", "registry"

    def __init__(self, machine: Machine) -> None:
        self.machine, self.dir = machine, machine.lab.dir / "containerd"
        self.dir.mkdir()
        self.sock = self.dir / "sock"

    def start(self) -> None:
        """Starts it with the device's configuration."""
        self.machine.lab.spawn("containerd", self.machine.within(
            "containerd", "--config", "/etc/containerd/config.toml", "--root", f"{self.dir}/root", "--state",
            f"{self.dir}/state", "--address", str(self.sock)))
        wait_until("containerd answers", self.sock.exists, 20)

    def pull(self, reference: str) -> None:
        """Pulls as kubelet does."""
        self.machine.run("/usr/bin/python3", "-c", CRI_PULL, str(self.sock), reference, seconds=150)


class Docker:
    """dockerd with the device's daemon.json."""

    name, image_registry = "docker", "docker.io"

    def __init__(self, machine: Machine) -> None:
        self.machine, self.dir = machine, machine.lab.dir / "docker"
        self.dir.mkdir()
        self.sock = self.dir / "sock"

    def start(self) -> None:
        """Starts it before it was set up: it has to take the change up at SIGHUP."""
        self.machine.lab.spawn("docker", self.machine.within(
            "dockerd", "--data-root", f"{self.dir}/data", "--exec-root", f"{self.dir}/exec", "--pidfile",
            f"{self.dir}/pid", "--host", f"unix://{self.sock}", "--storage-driver",
            "overlay2" if overlay_works(self.dir) else "vfs", "--bridge=none", "--iptables=false", "--ip6tables=false",
            "--ip-forward=false"))
        wait_until("dockerd answers", self.sock.exists, 20)
        self.docker("version")

    def docker(self, *arguments: str, seconds: float = 60) -> str:
        """Runs the client."""
        return self.machine.run("docker", "--host", f"unix://{self.sock}", *arguments, seconds=seconds)

    def restart(self) -> None:
        """Starts it anew."""
        self.machine.lab.stop("docker")
        self.start()

    def mirrors(self) -> int:
        """How many mirrors it has."""
        return int(self.docker("info", "--format", "{{len .RegistryConfig.Mirrors}}"))

    def reload(self, mirrors: int) -> None:
        """Tells it to read its configuration again, and waits until it has so many mirrors."""
        os.kill(int((self.dir / "pid").read_text()), signal.SIGHUP)
        wait_until("dockerd has read its configuration", lambda: self.mirrors() == mirrors, 20)

    def pull(self, reference: str) -> None:
        """Pulls."""
        self.docker("pull", "--quiet", reference, seconds=150)


class Podman:
    """Podman with the device's registries.conf."""

    name, image_registry = "podman", "docker.io"

    def __init__(self, machine: Machine) -> None:
        self.machine, self.dir = machine, machine.lab.dir / "podman"
        self.dir.mkdir()

    def storage(self) -> Path:
        """Its storage.conf."""
        storage = self.dir / "storage.conf"
        storage.write_text(f'[storage]\ndriver = "{"overlay" if overlay_works(self.dir) else "vfs"}"\n'
                           f'graphroot = "{self.dir}/root"\nrunroot = "{self.dir}/run"\n', encoding="utf-8")
        return storage

    def pull(self, reference: str) -> None:
        """Pulls."""
        policy = self.dir / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}', encoding="utf-8")
        self.machine.run("podman", "--tmpdir", f"{self.dir}/tmp", "--cgroup-manager", "cgroupfs", "--events-backend",
                         "none", "pull", "--quiet", "--signature-policy", str(policy), reference, seconds=150,
                         CONTAINERS_STORAGE_CONF=str(self.storage()))

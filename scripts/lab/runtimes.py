"""The container runtimes, each set up as its users set it up to pull through the node on its device.

Each pull starts with an empty image store of its own, so that all bytes come through the mirror. No runtime knows
the registry's address or its password: a pull that bypasses the node fails.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from .host import Failure, Lab, wait_until
from .image import Image, native_architecture
from .net import Site, overlay_works
from .registry import HOST, REPOSITORIES, TAG, USER, Registry

PULL_SECONDS_MAX = 120
"""Deadline of one pull."""
START_SECONDS_MAX = 20
"""Deadline of a runtime's daemon to answer."""
NEEDS = {"ctr": "containerd", "runc": "runc", "dockerd": "docker.io", "podman": "podman", "skopeo": "skopeo"}
"""Debian's package of each command."""
RUN_LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
"""Podman asks for more than a container that runs this script may raise."""


@dataclass(frozen=True)
class Mirror:
    """What answers on the device: address, and whether it takes the registry's name as a path prefix."""

    address: str = "127.0.0.1:7117"
    prefixed: bool = True


class Runtime:
    """One runtime with an empty store on one device."""

    name = ""
    registry = HOST
    """The registry's name in the images it pulls."""
    hosts: Path | None = None
    """What clients have as /etc/hosts; by default they know no name."""

    def __init__(self, lab: Lab, site: Site, device: str, image: Image, mirror: Mirror) -> None:
        self.lab, self.site, self.device, self.mirror = lab, site, device, mirror
        self.take(image)
        number = 0
        while (directory := lab.dir / device / f"{self.name}-{number}").exists():
            number += 1
        directory.mkdir(parents=True)
        self.dir = directory
        self.log = f"{device}-{self.name}"

    def take(self, image: Image, repositories: dict[str, str] | None = None, tag: str = TAG) -> None:
        """Pulls and verifies this image from now on; `repositories` say where it is, by the registry's name."""
        self.image, self.tag = image, tag
        self.repositories = repositories or REPOSITORIES
        self.expected = image.platforms[native_architecture()]

    @property
    def repository(self) -> str:
        """The image's name without tag or digest."""
        return f"{self.registry}/{self.repositories[self.registry]}"

    def reference(self, by: str) -> str:
        """The image's name by "tag" or by "digest" (of the index)."""
        return f"{self.repository}:{self.tag}" if by == "tag" else f"{self.repository}@{self.image.index.digest}"

    def start(self) -> None:
        """Starts the daemon, if there is one, and waits until it answers."""

    def pull(self, reference: str) -> None:
        """Pulls, or raises `Failure`."""
        raise NotImplementedError

    def verify(self, reference: str) -> None:
        """Compares what the runtime now has with what was pushed; raises `Failure`."""
        raise NotImplementedError

    def remove(self, reference: str) -> None:
        """Removes an image with all that no other image needs."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the daemon."""
        self.lab.stop(self.log)

    def command(self, *argv: str, seconds: float = 60, **env: str) -> str:
        """Runs a client on the device and returns what it prints."""
        return self.lab.run(self.site.within(self.device, argv, self.hosts), seconds=seconds, log=f"{self.log}-client",
                            env=self.lab.environment(**env))

    def spawn(self, *argv: str) -> None:
        """Starts the daemon on the device."""
        self.lab.spawn(self.log, self.site.within(self.device, argv))

    def demand(self, what: str, found: object, expected: object) -> None:
        """Raises `Failure` unless both are equal."""
        if found != expected:
            raise Failure(f"{self.name}: {what} is {found}, pushed was {expected}")

    def write(self, name: str, text: str) -> Path:
        """Writes a file of the runtime's configuration."""
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


class Containerd(Runtime):
    """containerd by `ctr`, with a hosts.toml."""

    name = "containerd"
    more = ""
    """Further lines of its configuration."""

    def start(self) -> None:
        config = self.write("config.toml", f"""version = 2
root = "{self.dir}/root"
state = "{self.dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{self.dir}/sock"
[ttrpc]
address = "{self.dir}/ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.dir}/opt"
{self.more}""")
        self.write(f"hosts/{self.registry}/hosts.toml", f"""server = "https://{self.registry}"
{self.host()}
capabilities = ["pull", "resolve"]
""")
        self.snapshotter = "overlayfs" if overlay_works(self.dir) else "native"
        self.spawn("containerd", "--config", str(config))
        wait_until("containerd answers", (self.dir / "sock").exists, START_SECONDS_MAX)
        self.ctr("version")

    def host(self) -> str:
        """Whom it asks: the head of a section of hosts.toml."""
        return f'[host."http://{self.mirror.address}"]'

    def ctr(self, *arguments: str, seconds: float = 60) -> str:
        """Runs `ctr`."""
        return self.command("ctr", "--address", f"{self.dir}/sock", *arguments, seconds=seconds)

    def credentials(self) -> list[str]:
        """Options of a pull that say who asks."""
        return []

    def pull(self, reference: str) -> None:
        self.ctr("images", "pull", *self.credentials(), "--hosts-dir", f"{self.dir}/hosts",
                 "--platform", f"linux/{native_architecture()}", "--snapshotter", self.snapshotter, reference,
                 seconds=PULL_SECONDS_MAX)

    def verify(self, reference: str) -> None:
        lines = [line.split() for line in self.ctr("images", "list", f"name=={reference}").splitlines()[1:]]
        self.demand("the image", [line[2] for line in lines], [self.image.index.digest])
        content = set(self.ctr("content", "list", "--quiet").split())
        self.demand("content without", {blob.digest for blob in self.expected.blobs()} - content, set())
        for blob in self.expected.blobs():
            with open(self.content / "blobs/sha256" / blob.hex, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.demand("a blob", f"sha256:{digest}", blob.digest)

    def remove(self, reference: str) -> None:
        self.ctr("images", "remove", "--sync", reference)

    @property
    def content(self) -> Path:
        """containerd's content store."""
        return self.dir / "root/io.containerd.content.v1.content"


class DirectContainerd(Containerd):
    """containerd that knows the registry and nothing of nodes. Whatever is deleted it collects at once."""

    name = "containerd-direct"
    more = """[plugins."io.containerd.gc.v1.scheduler"]
deletion_threshold = 1
schedule_delay = "0s"
"""

    def __init__(self, lab: Lab, site: Site, device: str, image: Image, served: Registry) -> None:
        super().__init__(lab, site, device, image, Mirror())
        self.served, self.hosts = served, served.hosts

    def host(self) -> str:
        return f'[host."https://{self.registry}"]\nca = "{self.served.ca_file}"'

    def credentials(self) -> list[str]:
        return ["--user", f"{USER}:{self.served.password}"]


class Docker(Runtime):
    """Docker Engine with the node among its `registry-mirrors`, which Docker asks for docker.io only."""

    name = "docker"
    registry = "docker.io"

    def start(self) -> None:
        config = self.write("daemon.json", json.dumps({"registry-mirrors": [f"http://{self.mirror.address}"]}))
        self.spawn("dockerd", "--config-file", str(config), "--data-root", f"{self.dir}/data", "--exec-root",
                   f"{self.dir}/exec", "--pidfile", f"{self.dir}/pid", "--host", f"unix://{self.dir}/sock",
                   "--storage-driver", "overlay2" if overlay_works(self.dir) else "vfs",
                   "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
        wait_until("dockerd answers", (self.dir / "sock").exists, START_SECONDS_MAX)
        self.docker("version")

    def docker(self, *arguments: str, seconds: float = 60) -> str:
        """Runs the client."""
        return self.command("docker", "--host", f"unix://{self.dir}/sock", *arguments, seconds=seconds)

    def pull(self, reference: str) -> None:
        self.docker("pull", "--quiet", reference, seconds=PULL_SECONDS_MAX)

    def verify(self, reference: str) -> None:
        image = json.loads(self.docker("image", "inspect", reference))[0]
        self.demand("the image's id", image["Id"], self.expected.config.digest)
        repository = self.repository.removeprefix("docker.io/").removeprefix("library/")
        self.demand("the digest", image["RepoDigests"], [f"{repository}@{self.image.index.digest}"])


class ContainersImage(Runtime):
    """What Podman and skopeo share: a mirror in registries.conf, by path prefix."""

    def start(self) -> None:
        prefix = f"/{self.registry}" if self.mirror.prefixed else ""
        self.registries_conf = self.write("registries.conf", f"""[[registry]]
prefix = "{self.registry}"
location = "{self.registry}"
[[registry.mirror]]
location = "{self.mirror.address}{prefix}"
insecure = true
""")
        self.policy = self.write("policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')


class Podman(ContainersImage):
    """Podman; the image is also run."""

    name = "podman"

    def start(self) -> None:
        super().start()
        driver = "overlay" if overlay_works(self.dir) else "vfs"
        storage = self.write("storage.conf", f"""[storage]
driver = "{driver}"
graphroot = "{self.dir}/root"
runroot = "{self.dir}/run"
""")
        self.env = {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(self.write("empty.conf", "")),
                    "CONTAINERS_REGISTRIES_CONF": str(self.registries_conf)}

    def podman(self, *arguments: str, seconds: float = 60) -> str:
        """Runs `podman` with all state in the runtime's directory and none of the machine's configuration."""
        return self.command("podman", "--tmpdir", f"{self.dir}/tmp", "--cgroup-manager", "cgroupfs", "--runtime", "runc",
                            "--events-backend", "none", *arguments, seconds=seconds, **self.env)

    def pull(self, reference: str) -> None:
        self.podman("pull", "--quiet", "--signature-policy", str(self.policy), reference, seconds=PULL_SECONDS_MAX)

    def verify(self, reference: str) -> None:
        image = json.loads(self.podman("image", "inspect", reference))[0]
        self.demand("the image's id", image["Id"], self.expected.config.hex)
        digests = {entry.split("@")[1] for entry in image["RepoDigests"]}
        self.demand("the digest", self.image.index.digest in digests, True)
        printed = self.podman("run", "--rm", "--network", "none", *RUN_LIMITS, image["Id"])
        self.demand("what the image prints", printed.strip(), self.image.greeting)

    def remove(self, reference: str) -> None:
        self.podman("image", "rm", "--force", reference)


class Skopeo(ContainersImage):
    """skopeo, into a plain directory or an OCI layout: nothing is unpacked, so this is the time of the transfer.

    Into a directory it asks for one layer after the other, into a layout for up to six at once, as the runtimes do.
    """

    name = "skopeo"
    into = "dir"
    """Or `oci`."""

    def copy(self, reference: str) -> list[str]:
        """The command that copies an image."""
        destination = f"{self.into}:{self.dir}/image" + (":copied" if self.into == "oci" else "")
        return ["skopeo", "copy", "--quiet", "--policy", str(self.policy), "--registries-conf",
                str(self.registries_conf), f"docker://{reference}", destination]

    def pull(self, reference: str) -> None:
        self.command(*self.copy(reference), seconds=PULL_SECONDS_MAX)

    def verify(self, reference: str) -> None:
        blobs = [self.expected.config, *self.expected.layers]
        if self.into == "oci":
            files = {f"blobs/sha256/{blob.hex}": blob for blob in [self.expected.manifest, *blobs]}
        else:
            files = {"manifest.json": self.expected.manifest} | {blob.hex: blob for blob in blobs}
        for name, blob in files.items():
            digest = hashlib.sha256((self.dir / "image" / name).read_bytes()).hexdigest()
            self.demand(name, f"sha256:{digest}", blob.digest)

    def remove(self, reference: str) -> None:
        shutil.rmtree(self.dir / "image", ignore_errors=True)


RUNTIMES: tuple[type[Runtime], ...] = (Containerd, Docker, Podman, Skopeo)
"""Every runtime there is."""

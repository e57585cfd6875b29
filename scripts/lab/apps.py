"""Small images of two apps in several versions, for two platforms each, and a registry's storage that has them all.

An app is busybox, a layer of incompressible data, and an entry point that says which app in which version it is. Of
`EVIL`, somebody else's version, the registry knows nothing: it is only a layout.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import image, registry
from .host import Failure, Lab
from .image import ARCHITECTURES, Blob, Image, put_index, put_layer, put_platform

APPS = {"camera": 5_000_000, "detector": 8_000_000}
"""Bytes of each app's data, for each platform."""
OLD, NEW, EVIL = "1.0", "1.1", "6.6"
TAG = "stable"
"""The tag by which all devices know all versions."""
BUSYBOX_SECONDS_MAX = 120


@dataclass(frozen=True)
class App:
    """A version of an app: its image, and where registries have it, by the registry's name for clients."""

    name: str
    version: str
    image: Image

    @property
    def repositories(self) -> dict[str, str]:
        """Where it is, by the registry's name for clients."""
        return repositories(self.name)

    @property
    def references(self) -> list[str]:
        """All its names."""
        return [f"{host}/{repository}:{TAG}" for host, repository in self.repositories.items()]


def repositories(name: str) -> dict[str, str]:
    """Where an app is, by the registry's name for clients. Docker's graph drivers ask mirrors for docker.io only."""
    return {registry.HOST: f"fleet/{name}", "docker.io": f"library/{name}"}


def prepare(lab: Lab, cache: Path) -> Path:
    """Directory with the layouts of all apps, and a registry's storage; made once, then cached."""
    recipe = Path(__file__).read_bytes() + Path(image.__file__).read_bytes() + image.suite().encode()
    return registry.cached(cache, f"apps-{hashlib.sha256(recipe).hexdigest()[:16]}", lambda place: _fill(lab, place))


def read(prepared: Path, version: str) -> list[App]:
    """All apps of a version."""
    return [App(name, version, image.read(_layout(prepared, name, version), _greeting(name, version))) for name in APPS]


def _layout(prepared: Path, name: str, version: str) -> Path:
    return prepared / f"{name}-{version}"


def _greeting(name: str, version: str) -> str:
    return f"{name} {version}"


def _fill(lab: Lab, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        busybox = {architecture: busybox_of(lab, Path(scratch), architecture) for architecture in ARCHITECTURES}
    for name in APPS:
        for version in (OLD, NEW, EVIL):
            _build(_layout(place, name, version), name, version, busybox)
    pushed = {f"{repository}:{version}": _layout(place, name, version) for name in APPS for version in (OLD, NEW)
              for repository in repositories(name).values()}
    registry.push(lab, place / "storage", pushed)


def busybox_of(lab: Lab, scratch: Path, architecture: str) -> bytes:
    """The program, for an architecture."""
    tree = scratch / architecture
    lab.run(["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", f"--architectures={architecture}",
             "--include=busybox-static", image.suite(), str(tree)], seconds=BUSYBOX_SECONDS_MAX, env=dict(os.environ))
    found = [path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.is_file()]
    if not found:
        raise Failure(f"{image.suite()}'s busybox-static has no busybox for {architecture}")
    return found[0].read_bytes()


def _build(layout: Path, name: str, version: str, busybox: dict[str, bytes]) -> None:
    (layout / "blobs/sha256").mkdir(parents=True)
    manifests = []
    for architecture in ARCHITECTURES:
        data = random.Random(f"{name} {version} {architecture}").randbytes(APPS[name])
        layers: list[tuple[Blob, str]] = [
            put_layer(layout, lambda tar, program=busybox[architecture]: add_base(tar, program)),
            put_layer(layout, lambda tar, data=data: add(tar, "app/data", 0o644, data)),
            put_layer(layout, lambda tar: image.add_app(tar, _greeting(name, version))),
        ]
        manifests.append(put_platform(layout, architecture, layers))
    put_index(layout, manifests)


def add_base(tar: tarfile.TarFile, busybox: bytes) -> None:
    """The bottom layer: enough for a shell script to run."""
    add(tar, "bin/busybox", 0o755, busybox)
    add(tar, "etc/issue", 0o644, b"busybox\n")
    shell = tarfile.TarInfo("bin/sh")
    shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
    tar.addfile(shell)


def add(tar: tarfile.TarFile, name: str, mode: int, content: bytes) -> None:
    """Adds a file to a layer."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    tar.addfile(entry, io.BytesIO(content))

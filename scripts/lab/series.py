"""A series of images of one app, as its releases are: layers that all share, layers of their own, and one too large.

The bytes are incompressible and come from a seed; a program on top says which image it is. They are for this machine's
platform only, and of the large layers only the registry's storage has the bytes.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import apps, image, registry
from .filler import SEED
from .host import Lab
from .image import Blob, Image, native_architecture, put_index, put_layer, put_platform
from .registry import HOST, REPOSITORIES
from .usage import MIB

COUNT = 16
SHARED_BYTES = 24 * MIB
OWN_BYTES = (30 * MIB, 6 * MIB)
"""Layers of each image: all of them together, with what they share, are 600 MiB."""
HUGE_BYTES = (75 * MIB, 75 * MIB)
"""Own layers of the last one."""
LARGE_BYTES = MIB
"""Blobs from this size on are in the registry's storage alone."""


@dataclass(frozen=True)
class Version:
    """An image of the series, by its tag."""

    tag: str
    image: Image

    @property
    def reference(self) -> str:
        """Its name."""
        return f"{HOST}/{REPOSITORIES[HOST]}:{self.tag}"

    @property
    def blobs(self) -> list[Blob]:
        """All that a pull of it transfers."""
        return [self.image.index, *self.image.platforms[native_architecture()].blobs()]

    @property
    def hexes(self) -> frozenset[str]:
        """Their digests."""
        return frozenset(blob.hex for blob in self.blobs)


def prepare(lab: Lab, cache: Path) -> Path:
    """Directory with the layouts of all images, and a registry's storage; made once, then cached."""
    recipe = b"".join(Path(file).read_bytes() for file in (__file__, image.__file__, apps.__file__))
    key = hashlib.sha256(recipe + image.suite().encode()).hexdigest()[:16]
    return registry.cached(cache, f"series-{key}", lambda place: _fill(lab, place))


def read(prepared: Path) -> tuple[list[Version], Version]:
    """The series, and the one that is too large."""
    *series, huge = [Version(tag, image.read(prepared / tag, _greeting(tag))) for tag in _tags()]
    return series, huge


def size(versions: list[Version]) -> int:
    """Bytes of all of them, what they share counted once."""
    return sum(blob.size for blob in {blob for version in versions for blob in version.blobs})


def _tags() -> list[str]:
    return [*(f"v{number}" for number in range(COUNT)), "huge"]


def _greeting(tag: str) -> str:
    return f"release {tag}"


def _fill(lab: Lab, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        busybox = apps.busybox_of(lab, Path(scratch), native_architecture())
    for tag in _tags():
        _build(place / tag, tag, busybox)
    registry.push(lab, place / "storage", {f"{repository}:{tag}": place / tag for tag in _tags()
                                           for repository in REPOSITORIES.values()})
    for tag in _tags():
        for blob in (place / tag / "blobs/sha256").iterdir():
            if blob.stat().st_size >= LARGE_BYTES:
                blob.unlink()


def _build(layout: Path, tag: str, busybox: bytes) -> None:
    (layout / "blobs/sha256").mkdir(parents=True)

    def data(name: str, count: int) -> tuple[Blob, str]:
        content = random.Random(f"{SEED} {name}").randbytes(count)
        return put_layer(layout, lambda tar: apps.add(tar, f"app/{name}", 0o644, content), level=0)

    own = HUGE_BYTES if tag == "huge" else OWN_BYTES
    layers = [put_layer(layout, lambda tar: apps.add_base(tar, busybox)), data("shared", SHARED_BYTES),
              *(data(f"{tag}-{number}", count) for number, count in enumerate(own)),
              put_layer(layout, lambda tar: image.add_app(tar, _greeting(tag)))]
    put_index(layout, [put_platform(layout, native_architecture(), layers)])

"""Two versions of an image: Debian, packages on top, a small app. In the second one of the packages is upgraded.

The layers are pushed by skopeo, which compresses them as Podman and buildah do. Built from the distribution's packages, without
running anything, and kept in a cache: building takes most of a minute, and no run changes it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import image
from .host import Failure, Lab, say
from .registry import REPOSITORIES, cached, push

TAGS = ("1.0", "2.0")
STACK = [*image.BASE, "python3-minimal", "git", "openssl"]
UPGRADED = "git"
GREETINGS = ("the app runs", "the new app runs")
BUILD_SECONDS_MAX = 300


@dataclass(frozen=True)
class Versions:
    """What was pushed."""

    storage: Path
    """The registry's, which whoever writes to it has to copy."""
    images: tuple[image.Image, image.Image]

    def changed_bytes(self) -> int:
        """Bytes of layers that the second has and the first has not."""
        old, new = (one.platforms[image.native_architecture()].layers for one in self.images)
        return sum(layer.size for layer in set(new) - set(old))


def prepare(lab: Lab, cache: Path) -> Versions:
    """Both versions in a registry's storage; made once, then cached."""
    sources = Path(__file__).read_bytes() + Path(image.__file__).read_bytes() + image.suite().encode()
    directory = cached(cache, hashlib.sha256(sources).hexdigest()[:16], lambda directory: _fill(lab, directory))
    first, second = (image.read(directory / tag, greeting) for tag, greeting in zip(TAGS, GREETINGS))
    return Versions(directory / "storage", (first, second))


def _fill(lab: Lab, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        plain = [Path(scratch) / f"plain-{tag}" for tag in TAGS]
        _build(lab, Path(scratch), plain)
        images = {f"{repository}:{tag}": layout for repository in REPOSITORIES.values() for tag, layout in zip(TAGS, plain)}
        name = next(iter(REPOSITORIES.values()))
        push(lab, directory / "storage", images, {f"{name}:{tag}": directory / tag for tag in TAGS})


def _build(lab: Lab, scratch: Path, layouts: list[Path]) -> None:
    """Builds both as OCI layouts whose layers are not compressed."""
    base, all_of_it = scratch / "base", scratch / "all"
    for tree, packages in ((base, image.BASE), (all_of_it, STACK)):
        say(f"   {packages[-1]} and {len(packages) - 1} more packages")
        lab.run(["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", f"--include={','.join(packages)}",
                 image.suite(), str(tree)], seconds=BUILD_SECONDS_MAX, env=dict(os.environ))
    # The newest is there already: the second version comes first.
    for layout, greeting in zip(reversed(layouts), reversed(GREETINGS)):
        (layout / "blobs/sha256").mkdir(parents=True)
        below = image.facts(base)
        added = [path for path, fact in image.facts(all_of_it).items() if below.get(path) != fact]
        layers = [image.put_tar(layout, functools.partial(_add, tree, paths)) for tree, paths in ((base, below), (all_of_it, added))]
        layers.append(image.put_tar(layout, functools.partial(image.add_app, greeting=greeting)))
        architecture = image.native_architecture()
        image.put_index(layout, [image.put_platform(layout, architecture, layers, layer_type=image.TAR_TYPE)])
        if layout is layouts[-1]:
            lab.run(["dpkg-deb", "--extract", str(_older(lab, scratch)), str(all_of_it)])
    for tree in (base, all_of_it):
        shutil.rmtree(tree)


def _add(tree: Path, paths: list[str], tar: tarfile.TarFile) -> None:
    for path in paths:
        tar.add(tree / path, arcname=path, recursive=False)


def _older(lab: Lab, scratch: Path) -> Path:
    """The package that is upgraded, in the version before the newest that the distribution has."""
    shown = lab.run(["apt-cache", "madison", UPGRADED], env=dict(os.environ))
    versions = {line.split("|")[1].strip() for line in shown.splitlines()}
    later = functools.cmp_to_key(lambda one, other: _compare(lab, one, other))
    if len(versions) < 2:
        raise Failure(f"the distribution has only one version of {UPGRADED}: {shown}")
    version = sorted(versions, key=later)[-2]
    say(f"   {UPGRADED} {version}, and the newest")
    directory = scratch / "older"
    directory.mkdir(mode=0o755)
    lab.run(["sh", "-c", 'cd "$1" && apt-get -o APT::Sandbox::User=root download "$2"', "sh", str(directory),
             f"{UPGRADED}={version}"], seconds=BUILD_SECONDS_MAX, env=dict(os.environ))
    return next(directory.glob("*.deb"))


def _compare(lab: Lab, one: str, other: str) -> int:
    if one == other:
        return 0
    status, _ = lab.attempt(["dpkg", "--compare-versions", one, "lt", other])
    return -1 if status == 0 else 1

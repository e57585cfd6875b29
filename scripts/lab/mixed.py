"""Devices with different processors: their nodes, those that are not this machine's under qemu-user, and an image for all of them."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .apps import add
from .host import Lab
from .image import Image, put_index, put_layer, put_platform, read
from .node import BUILD_SECONDS_MAX, ROOT, Node, release

SHARED_BYTES, OWN_BYTES = 24_000_000, 8_000_000
"""Bytes of the layer that all platforms have, and of the one that each has alone."""


@dataclass(frozen=True)
class Processor:
    """A kind of device."""

    architecture: str
    """As images call it."""
    cross: str = ""
    """As `scripts/cross` calls it; none for this machine's own."""
    triple: str = ""
    emulator: tuple[str, ...] = ()
    """What runs its programs here."""

    @property
    def variable(self) -> str:
        """The environment's variable that names its node."""
        return f"LAYERMESH_BIN_{self.cross.upper()}" if self.cross else "LAYERMESH_BIN"


AMD64 = Processor("amd64")
ARM64 = Processor("arm64", "arm64", "aarch64-unknown-linux-gnu", ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"))
ARMV7 = Processor("arm", "armv7", "armv7-unknown-linux-gnueabihf", ("qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"))
PROCESSORS = (AMD64, ARM64, ARMV7)
EMULATED = {"MALLOC_ARENA_MAX": "1"}
"""A node that is not told how many arenas glibc shall have starts itself again. The kernel, which does that, would have to know
of the emulator; so the node is told what it would tell itself."""


def built(processor: Processor) -> Path:
    """The program: the one that the variable names, or a release build."""
    given = os.environ.get(processor.variable)
    if given:
        return ROOT / given
    if not processor.cross:
        return release()
    subprocess.run([ROOT / "scripts/cross", processor.cross], cwd=ROOT, check=True, stdout=sys.stderr,
                   timeout=BUILD_SECONDS_MAX)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / processor.triple / "release/layermesh"


def program(lab: Lab, processor: Processor) -> Path:
    """What runs a node for that processor: the program, or a script that has the emulator run it."""
    name = f"layermesh-{processor.architecture}"
    copied = Path(shutil.copy(built(processor), lab.dir / name))
    if not processor.emulator:
        return copied
    script = lab.dir / f"{name}.sh"
    script.write_text(f'#!/bin/sh\nexec {shlex.join([*processor.emulator, str(copied)])} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def emulate(one: Node, processor: Processor) -> Node:
    """Has a node cope with its emulator."""
    one.environment |= EMULATED if processor.emulator else {}
    return one


def build(_: Lab, layout: Path) -> Image:
    """An image for all processors as an OCI layout: one layer is the same for all, and one is each one's own."""
    generator = random.Random("mixed")
    (layout / "blobs/sha256").mkdir(parents=True)
    shared = generator.randbytes(SHARED_BYTES)
    manifests = []
    for processor in PROCESSORS:
        own = generator.randbytes(OWN_BYTES)
        layers = [put_layer(layout, lambda tar: add(tar, "app/data", 0o644, shared)),
                  put_layer(layout, lambda tar, own=own: add(tar, "app/program", 0o755, own))]
        manifests.append(put_platform(layout, processor.architecture, layers, command=()))
    put_index(layout, manifests)
    return read(layout)


def build_alone(layout: Path) -> Image:
    """An image that no registry has, for this machine's processor; small."""
    (layout / "blobs/sha256").mkdir(parents=True)
    data = random.Random("alone").randbytes(OWN_BYTES)
    layers = [put_layer(layout, lambda tar: add(tar, "app/data", 0o644, data))]
    put_index(layout, [put_platform(layout, AMD64.architecture, layers, command=())])
    return read(layout)

"""An image of incompressible bytes, for measuring transfers: one big layer beside several smaller ones.

The bytes come from a seeded generator, so that every machine measures with the same blobs.
"""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .host import Lab
from .image import Image, native_architecture, put_index, put_layer, put_platform, read

SEED = 117
"""Any; the same for all, so that figures of two machines are of the same bytes."""


@dataclass(frozen=True)
class Recipe:
    """The name in the cache (to change with what it makes), and the sizes of the layers in bytes."""

    key: str
    layers: tuple[int, ...]


LARGE = Recipe("large-1", tuple(size * 1_000_000 for size in (60, 22, 12, 5, 1)))
"""100 MB, as an application with its runtime libraries; most of it in one layer."""
SMALL = Recipe("small-1", (3_000_000, 1_200_000, 500_000, 200_000, 100_000))
"""5 MB, for sites of so many devices that one machine could not carry more bytes."""


def build(recipe: Recipe, layout: Path) -> Image:
    """Builds the image as an OCI layout, for this machine's platform only, and reads it."""
    generator = random.Random(SEED)
    (layout / "blobs/sha256").mkdir(parents=True)
    layers = []
    for number, size in enumerate(recipe.layers):
        def fill(tar: tarfile.TarFile, number: int = number, size: int = size) -> None:
            entry = tarfile.TarInfo(f"filler/{number}")
            entry.size = size
            tar.addfile(entry, io.BytesIO(generator.randbytes(size)))

        layers.append(put_layer(layout, fill))
    put_index(layout, [put_platform(layout, native_architecture(), layers, command=())])
    return read(layout)


def builder(recipe: Recipe) -> object:
    """What `registry.prepare` calls."""
    def run(_: Lab, layout: Path) -> Image:
        return build(recipe, layout)

    return run

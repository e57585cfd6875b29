"""An image of incompressible bytes, for measuring transfers: one big layer beside several smaller ones.

The bytes come from a seeded generator, so that every machine measures with the same blobs.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .host import Lab
# The layout's writer is the package's own; renaming it would make every machine build the other image anew.
from .image import (CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE, Image, _described, _put_json, _put_layer,
                    native_architecture, read)

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
    layers, diff_ids = [], []
    for number, size in enumerate(recipe.layers):
        def fill(tar: tarfile.TarFile, number: int = number, size: int = size) -> None:
            entry = tarfile.TarInfo(f"filler/{number}")
            entry.size = size
            tar.addfile(entry, io.BytesIO(generator.randbytes(size)))

        layer, diff_id = _put_layer(layout, fill)
        layers.append(layer)
        diff_ids.append(diff_id)
    platform = {"architecture": native_architecture(), "os": "linux"}
    config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                "config": _described(_put_json(layout, config), CONFIG_TYPE),
                "layers": [_described(layer, LAYER_TYPE) for layer in layers]}
    described = {**_described(_put_json(layout, manifest), MANIFEST_TYPE), "platform": platform}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [described]}
    top = {"schemaVersion": 2, "manifests": [_described(_put_json(layout, index), INDEX_TYPE)]}
    (layout / "index.json").write_text(json.dumps(top), encoding="utf-8")
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="utf-8")
    return read(layout)


def builder(recipe: Recipe) -> object:
    """What `registry.prepare` calls."""
    def run(_: Lab, layout: Path) -> Image:
        return build(recipe, layout)

    return run

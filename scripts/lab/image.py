"""The image that is pulled: Debian, packages on top, a small app; for two platforms under one index.

Built from the distribution's packages as an OCI layout, without a registry and without running anything of the
foreign platform, and kept in a cache: building takes most of a minute, and no run changes it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .host import Lab, say

ARCHITECTURES = ("amd64", "arm64")
VARIANTS = {"arm64": "v8", "arm": "v7"}
"""Of the processors that have some, the one that images are built for."""
BASE = ("base-files bash ca-certificates coreutils dash debianutils dpkg findutils grep gzip libc-bin libc6 login "
        "mawk ncurses-base passwd perl-base sed tar util-linux").split()
STACKS = [BASE, [*BASE, "python3-minimal"], [*BASE, "python3-minimal", "git", "openssl"]]
"""Packages in the root file system of each layer; a layer is what it adds to the one below."""
GREETING = "the app runs"
"""What the image's entry point prints."""
GZIP_LEVEL = 6
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
TAR_TYPE = "application/vnd.oci.image.layer.v1.tar"
"""Of a layer that is not compressed."""


@dataclass(frozen=True)
class Blob:
    """Digest ("sha256:…") and size in bytes."""

    digest: str
    size: int

    @property
    def hex(self) -> str:
        """The digest without its algorithm."""
        return self.digest.split(":")[1]


@dataclass(frozen=True)
class Platform:
    """What a pull of one platform transfers beside the index."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    def blobs(self) -> list[Blob]:
        """All of them."""
        return [self.manifest, self.config, *self.layers]


@dataclass(frozen=True)
class Image:
    """An image in an OCI layout."""

    layout: Path
    index: Blob
    platforms: dict[str, Platform]
    greeting: str
    """What its entry point prints."""

    def pull_bytes(self, architecture: str) -> int:
        """Bytes of one pull of one platform: index, manifest, config and compressed layers."""
        return self.index.size + sum(blob.size for blob in self.platforms[architecture].blobs())


def native_architecture() -> str:
    """This machine's architecture, as images call it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def recipe_digest() -> str:
    """Changes when this file or the suite does: the key of the cache."""
    return hashlib.sha256(Path(__file__).read_bytes() + suite().encode()).hexdigest()[:16]


def suite() -> str:
    """The Debian release to build from: this machine's own, whose keys it has."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    fields = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    is_debian = fields.get("ID", "").strip('"') == "debian"
    return fields.get("VERSION_CODENAME", "").strip('"') if is_debian else "bookworm"


def build(lab: Lab, layout: Path) -> Image:
    """Builds the image as the OCI layout `layout`, which appears whole or not at all, and reads it."""
    with tempfile.TemporaryDirectory(dir=layout.parent) as scratch:
        growing = Path(scratch) / "layout"
        (growing / "blobs/sha256").mkdir(parents=True)
        put_index(growing, [_platform(lab, Path(scratch), growing, architecture) for architecture in ARCHITECTURES])
        growing.rename(layout)
    return read(layout)


def read(layout: Path, greeting: str = GREETING) -> Image:
    """Reads the image of an OCI layout with one index in it."""
    def blob(descriptor: dict) -> Blob:
        return Blob(descriptor["digest"], descriptor["size"])

    def content(of: Blob) -> dict:
        return json.loads((layout / "blobs/sha256" / of.hex).read_bytes())

    index = blob(json.loads((layout / "index.json").read_bytes())["manifests"][0])
    platforms = {}
    for entry in content(index)["manifests"]:
        manifest = content(blob(entry))
        layers = tuple(blob(layer) for layer in manifest["layers"])
        platforms[entry["platform"]["architecture"]] = Platform(blob(entry), blob(manifest["config"]), layers)
    return Image(layout, index, platforms, greeting)


def _platform(lab: Lab, scratch: Path, layout: Path, architecture: str) -> dict:
    """Builds one platform's layers, config and manifest; returns the manifest's descriptor for the index."""
    below: dict[str, tuple] = {}
    layers, diff_ids = [], []
    tree = scratch / architecture
    for packages in STACKS:
        say(f"   {architecture}: {packages[-1]} and {len(packages) - 1} more packages")
        shutil.rmtree(tree, ignore_errors=True)
        lab.run(["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", f"--architectures={architecture}",
                 f"--include={','.join(packages)}", suite(), str(tree)], seconds=300, env=dict(os.environ))
        found = facts(tree)
        added = [path for path, fact in found.items() if below.get(path) != fact]
        layer, diff_id = put_layer(layout, lambda tar, added=added: [
            tar.add(tree / path, arcname=path, recursive=False) for path in added])
        layers.append(layer)
        diff_ids.append(diff_id)
        below = found
    layer, diff_id = put_layer(layout, add_app)
    layers.append(layer)
    diff_ids.append(diff_id)
    shutil.rmtree(tree)
    return put_platform(layout, architecture, list(zip(layers, diff_ids)))


def facts(tree: Path) -> dict[str, tuple]:
    """What tells whether a path changed between two trees of the same packages, by path, parents first."""
    found = {}
    for directory, names, files in os.walk(tree):
        for name in sorted([*names, *files]):
            path = Path(directory) / name
            status = path.lstat()
            is_directory = path.is_dir() and not path.is_symlink()
            changing = () if is_directory else (status.st_size, int(status.st_mtime))
            target = os.readlink(path) if path.is_symlink() else ""
            found[str(path.relative_to(tree))] = (status.st_mode, status.st_uid, status.st_gid, target, *changing)
    return found


def add_app(tar: tarfile.TarFile, greeting: str = GREETING) -> None:
    """The top layer: the app, and the removal of a file of the layers below."""
    for name, mode, content in (("app/hello", 0o755, f'#!/bin/sh\necho "{greeting}"\n'), ("etc/.wh.issue", 0o644, "")):
        entry = tarfile.TarInfo(name)
        entry.mode, entry.size = mode, len(content)
        tar.addfile(entry, io.BytesIO(content.encode()))


def put_platform(layout: Path, architecture: str, layers: list[tuple[Blob, str]],
                 command: tuple[str, ...] = ("/app/hello",), layer_type: str = LAYER_TYPE) -> dict:
    """Writes config and manifest of layers with the digests of the tars in them; returns the index's entry."""
    variant = {"variant": VARIANTS[architecture]} if architecture in VARIANTS else {}
    platform = {"architecture": architecture, "os": "linux", **variant}
    config = {**platform, "config": {"Cmd": list(command)} if command else {},
              "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                "config": _described(_put_json(layout, config), CONFIG_TYPE),
                "layers": [_described(layer, layer_type) for layer, _ in layers]}
    return {**_described(_put_json(layout, manifest), MANIFEST_TYPE), "platform": platform}


def put_index(layout: Path, manifests: list[dict]) -> None:
    """Writes the index over `put_platform`'s entries, and what makes the directory an OCI layout."""
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    top = {"schemaVersion": 2, "manifests": [_described(_put_json(layout, index), INDEX_TYPE)]}
    (layout / "index.json").write_text(json.dumps(top), encoding="utf-8")
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="utf-8")


def put_layer(layout: Path, fill: object, level: int = GZIP_LEVEL) -> tuple[Blob, str]:
    """Writes a gzip layer, at level 0 without compression; returns its blob and the digest of the tar in it."""
    growing = layout / "growing"
    with tempfile.TemporaryFile() as plain:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
        plain.seek(0)
        whole = hashlib.sha256()
        with open(growing, "wb") as raw, gzip.GzipFile("", "wb", level, raw, mtime=0) as packed:
            while chunk := plain.read(1 << 20):
                whole.update(chunk)
                packed.write(chunk)
    digest = hashlib.sha256(growing.read_bytes()).hexdigest()
    size = growing.stat().st_size
    growing.rename(layout / "blobs/sha256" / digest)
    return Blob(f"sha256:{digest}", size), f"sha256:{whole.hexdigest()}"


def put_tar(layout: Path, fill: object) -> tuple[Blob, str]:
    """Writes a layer that is not compressed; returns it as `put_layer` does."""
    growing = layout / "growing"
    with tarfile.open(growing, mode="w", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    with open(growing, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = growing.stat().st_size
    growing.rename(layout / "blobs/sha256" / digest)
    return Blob(f"sha256:{digest}", size), f"sha256:{digest}"


def put_blob(layout: Path, content: bytes) -> Blob:
    """Writes a blob as it is."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(content)
    return Blob(f"sha256:{digest}", len(content))


def _put_json(layout: Path, value: dict) -> Blob:
    return put_blob(layout, json.dumps(value).encode())


def _described(blob: Blob, media_type: str) -> dict:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}

"""Bundles of releases, changed as somebody would who has no key: what `layermesh bundle import` has to see through.

A bundle is an OCI layout in a tar file; the metadata of releases is an artifact in it, each file a blob. A change makes
all digests of the layout right again, so that only signatures can tell.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from .host import Failure

SET_TYPE = "application/vnd.layermesh.releases.v1+json"
NAME = "tuf.io/filename"
"""Annotation of a file's name in an artifact."""


class Bundle:
    """The files of a bundle, in memory."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.isfile()]
            self._files = {member.name: tar.extractfile(member).read() for member in members}

    def write(self, path: Path) -> Path:
        """Writes it as another bundle."""
        with tarfile.open(path, "w") as tar:
            for name, content in self._files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return path

    def change(self, names: str, change: Callable[[str], str]) -> int:
        """Changes the files of metadata whose names end so; returns how many became others."""
        index = json.loads(self._files["index.json"])
        artifact = next(entry for entry in index["manifests"] if entry.get("artifactType") == SET_TYPE)
        manifest = json.loads(self._blob(artifact))
        changed = 0
        for layer in manifest["layers"]:
            if layer["annotations"][NAME].endswith(names):
                before = self._blob(layer)
                after = change(before.decode()).encode()
                changed += before != after
                self._replace(layer, after)
        self._replace(artifact, json.dumps(manifest).encode())
        self._files["index.json"] = json.dumps(index).encode()
        return changed

    def _blob(self, descriptor: dict) -> bytes:
        return self._files[_path(descriptor["digest"])]

    def _replace(self, descriptor: dict, content: bytes) -> None:
        """Puts another blob in a descriptor's place."""
        self._files.pop(_path(descriptor["digest"]), None)
        descriptor["digest"] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        descriptor["size"] = len(content)
        self._files[_path(descriptor["digest"])] = content


def changed(bundle: Path, target: Path, names: str, change: Callable[[str], str]) -> Path:
    """Writes a bundle in which the files of metadata whose names end so are others."""
    copy = Bundle(bundle)
    if not copy.change(names, change):
        raise Failure(f"nothing in {bundle} was changed")
    return copy.write(target)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"

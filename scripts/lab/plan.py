"""The plan that `layermesh-sim lab` makes of a scenario, and its images in a real registry's storage."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .host import Failure, Lab, wait_until
from .image import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, native_architecture
from .link import Link
from .net import Site

REPOSITORY = "fleet/lab"
"""Where all images are: a layer is the same blob wherever it appears."""
PUSH_ADDRESS = "127.0.0.1:5000"
CONFIG_BYTES = 2 << 10
"""Manifest and configuration are about 3 KiB together, as the simulator has them."""
START_SECONDS_MAX = 10
FILLING = ("fill",)
"""Acts that need a disk with an end."""


@dataclass(frozen=True)
class Pushed:
    """An image in the registry: the manifest's digest, and those of the configuration and the layers."""

    manifest: str
    blobs: tuple[str, ...]


class Plan:
    """What is to be built and done."""

    def __init__(self, text: str) -> None:
        told = json.loads(text)
        self.scenario: str = told["scenario"]
        self.devices: list[str] = told["devices"]
        self.uplink, self.lan = Link(**told["uplink"]), Link(**told["lan"])
        self.images: list[dict] = told["images"]
        self.steps: list[dict] = told["steps"]
        self.limit_s: float = told["limit_s"]
        self.seed: int = told["seed"]

    def blobs(self) -> dict[str, int]:
        """Sizes of all layers, by name."""
        return {name: size for image in self.images for name, size in image["layers"]}

    def bytes(self) -> int:
        """Of all layers."""
        return sum(self.blobs().values())

    def filled(self) -> list[int]:
        """Devices whose disks get full."""
        return sorted({device for step in self.steps if step["act"] in FILLING for device in step["devices"]})


def push(lab: Lab, site: Site, plan: Plan, storage: Path) -> list[Pushed]:
    """Pushes all images into a registry's storage; returns what they are called there."""
    config = lab.dir / "push.yml"
    config.write_text(json.dumps({"version": 0.1, "log": {"level": "info"}, "http": {"addr": PUSH_ADDRESS},
                                  "storage": {"filesystem": {"rootdirectory": str(storage)}}}), encoding="utf-8")
    lab.spawn("push", site.within(site.wan, ["docker-registry", "serve", str(config)]))

    def curl(*arguments: str) -> str:
        return lab.run(site.within(site.wan, ["curl", "--silent", "--show-error", "--fail", *arguments]), log="pushes")

    def answers() -> bool:
        try:
            curl(f"http://{PUSH_ADDRESS}/v2/")
        except Failure:
            return False
        return True

    wait_until("the registry to push to answers", answers, START_SECONDS_MAX)
    layers = {name: _push_blob(lab, curl, _bytes(name, size)) for name, size in plan.blobs().items()}
    pushed = [_push_image(lab, curl, image, layers) for image in plan.images]
    lab.stop("push")
    return pushed


def _bytes(name: str, size: int) -> bytes:
    """A layer's bytes: they follow from its name, so that every machine measures with the same."""
    return random.Random(name).randbytes(size)


def _push_blob(lab: Lab, curl: Callable[..., str], content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = lab.dir / "blob"
    path.write_bytes(content)
    head = curl("--request", "POST", "--dump-header", "-", f"http://{PUSH_ADDRESS}/v2/{REPOSITORY}/blobs/uploads/")
    place = next(line.split(":", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("location:"))
    curl("--request", "PUT", "--header", "Content-Type: application/octet-stream", "--upload-file", str(path),
         f"{place}&digest={digest}")
    path.unlink()
    return digest


def _push_image(lab: Lab, curl: Callable[..., str], image: dict, layers: dict[str, str]) -> Pushed:
    os_name, _, architecture = (image["platform"] or f"linux/{native_architecture()}").partition("/")
    about = {"architecture": architecture, "os": os_name, "config": {}, "rootfs": {"type": "layers", "diff_ids": []},
             "comment": image["name"].ljust(CONFIG_BYTES)}
    config = json.dumps(about).encode()
    config_digest = _push_blob(lab, curl, config)
    described = [{"mediaType": LAYER_TYPE, "digest": layers[name], "size": size} for name, size in image["layers"]]
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                           "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
                           "layers": described}).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    path = lab.dir / "manifest"
    path.write_bytes(manifest)
    curl("--request", "PUT", "--header", f"Content-Type: {MANIFEST_TYPE}", "--data-binary", f"@{path}",
         f"http://{PUSH_ADDRESS}/v2/{REPOSITORY}/manifests/{digest}")
    path.unlink()
    return Pushed(digest, (config_digest, *(layers[name] for name, _ in image["layers"])))

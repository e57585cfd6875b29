"""Signed releases: whoever makes them, and how far a node is with them."""

from __future__ import annotations

import json
from pathlib import Path

from .host import Lab
from .node import Node

CHANNEL = "stable"
REPOSITORY_FIELD = "x-layermesh-repository"
"""Field of a root that says which repository it is of."""


class Admin:
    """The admin's laptop, and somebody else's while the admin is away: a repository of releases beside a node."""

    def __init__(self, lab: Lab, one: Node, name: str) -> None:
        self.lab, self.node, self.dir = lab, one, lab.dir / f"releases-{name}"

    @property
    def root(self) -> Path:
        """What devices are given to believe in."""
        return self.dir / "root.json"

    def init(self) -> None:
        """Makes the repository and its keys."""
        self.node.command("release", "init", str(self.dir))

    def publish(self, version: str, names: list[str]) -> None:
        """Signs a release of the images with these names and hands it to the node."""
        self.node.command("release", "publish", "--dir", str(self.dir), "--channel", CHANNEL, "--version", version, *names)

    def export(self, version: str) -> Path:
        """Writes a release into a file."""
        file = self.lab.dir / f"{CHANNEL}-{version}.tar"
        self.node.command("bundle", "export", f"release:{CHANNEL}/{version}", str(file), "--releases", str(self.dir))
        return file

    def repository(self) -> str:
        """The repository's name in its root."""
        return json.loads(self.root.read_text(encoding="utf-8"))["signed"][REPOSITORY_FIELD]


def status(one: Node) -> dict:
    """What `layermesh release status --json` says of the node itself."""
    return json.loads(one.command("release", "status", "--json"))["node"]


def progress(one: Node, version: str) -> dict | None:
    """How far a node is with a release, if it knows of it."""
    return next((release for release in status(one)["releases"] if release["version"] == version), None)


def is_complete(one: Node, version: str) -> bool:
    """Whether a node has all of a release that it is to have."""
    return bool((progress(one, version) or {}).get("complete"))

"""The node under test: the `layermesh` binary on a device, as an unprivileged user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .host import COMMAND_SECONDS_MAX, Failure, Lab, wait_until
from .net import Site
from .registry import HOST, REPOSITORIES, USER, Registry

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
NOBODY = 65534
"""User and group that nodes run as."""
START_SECONDS_MAX = 20
"""Deadline from the start to the first answer."""
MEET_SECONDS_MAX = 60
"""Deadline to see all other nodes."""
BUILD_SECONDS_MAX = 1800
"""Deadline of a release build from nothing."""


def release() -> Path:
    """The binary under test: $LAYERMESH_BIN, or a release build."""
    given = os.environ.get("LAYERMESH_BIN")
    if given:
        return ROOT / given
    subprocess.run(["cargo", "build", "--release", "--bin", "layermesh"], cwd=ROOT, check=True, stdout=sys.stderr,
                   timeout=BUILD_SECONDS_MAX)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/layermesh"


def copy(lab: Lab, built: Path) -> Path:
    """A copy of it where every user can run it."""
    return Path(shutil.copy(built, lab.dir / "layermesh"))


def binary(lab: Lab) -> Path:
    """Both."""
    return copy(lab, release())


class Node:
    """One node, on one device."""

    def __init__(self, lab: Lab, site: Site, device: str, binary: Path, registry: Registry | None,
                 settings: str = "", name: str = "node", reads_all: bool = False) -> None:
        """Without a registry the node has no origin; `settings` are further lines of its configuration. `name` tells
        nodes of one device from each other, of which only one can run at a time. One that `reads_all` may read, and only
        read, what is other users' alone."""
        self.lab, self.site, self.device, self.binary, self.registry = lab, site, device, binary, registry
        self.settings, self.reads_all = settings, reads_all
        self.environment: dict[str, str] = {}
        """Variables of the node's own, beside those of all processes of the run."""
        self.prefix: list[str] = []
        """Words before the command that starts it, as root."""
        self.name = f"{device}-{name}"
        self.dir = lab.dir / device / name
        self.data_dir = self.dir / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        os.chown(self.data_dir, NOBODY, NOBODY)

    def start(self) -> None:
        """Starts the node and waits until it answers."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Starts the node."""
        config = self.dir / "layermesh.toml"
        config.write_text((self._origins() if self.registry else "") + self.settings, encoding="utf-8")
        node = [str(self.binary), "run", "--open", "--data-dir", str(self.data_dir), "--config", str(config)]
        unprivileged = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
        if self.reads_all:
            unprivileged += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        hosts = self.registry.hosts if self.registry else None
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        within = self.site.within(self.device, [*unprivileged, "env", *variables, *node], hosts)
        self.lab.spawn(self.name, [*self.prefix, *within])

    def wait_until_it_answers(self) -> None:
        """Waits for the first answer of a node that was started."""
        wait_until(f"{self.name} answers", self._answers, START_SECONDS_MAX)

    def _origins(self) -> str:
        password_file = self.dir / "password"
        password_file.write_text(self.registry.password, encoding="utf-8")
        password_file.chmod(0o400)
        os.chown(password_file, NOBODY, NOBODY)
        return "".join(f"""[[origin]]
registry = "{name}"
endpoint = "https://{HOST}"
ca_file = "{self.registry.ca_file}"
username = "{USER}"
password_file = "{password_file}"
""" for name in REPOSITORIES)

    def _answers(self) -> bool:
        self.lab.pid(self.name)
        try:
            self.status()
        except Failure:
            return False
        return True

    def status(self) -> dict:
        """What `layermesh status --json` says."""
        return json.loads(self.command("status", "--json", seconds=10))

    def held(self) -> set[str]:
        """Digests of all blobs that the node says it holds."""
        return {blob["digest"] for blob in json.loads(self.command("blobs", "--json"))}

    def command(self, *words: str, seconds: float = COMMAND_SECONDS_MAX) -> str:
        """Runs a command of the admin on the device and returns what it prints."""
        return self.lab.run(self._line(words), seconds=seconds, log=f"{self.device}-admin")

    def attempt(self, *words: str) -> tuple[int, str]:
        """Runs a command of the admin that may fail; returns its status and all that it says."""
        return self.lab.attempt(self._line(words), log=f"{self.device}-admin")

    def _line(self, words: tuple[str, ...]) -> list[str]:
        return self.site.within(self.device, [str(self.binary), *words, "--data-dir", str(self.data_dir)])

    def meet(self, others: int) -> None:
        """Waits until the node is connected to so many others."""
        wait_until(f"{self.name} sees {others} others", lambda: self.status()["peers"] >= others, MEET_SECONDS_MAX)

    def get_status_code(self, path: str, seconds: float) -> int:
        """HTTP status of a GET at the mirror, from the device."""
        argv = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", str(seconds),
                f"http://127.0.0.1:7117{path}"]
        return int(self.lab.run(self.site.within(self.device, argv), seconds=seconds + 5))

"""A machine that boots: a Debian root file system with systemd as its first process, in namespaces of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .host import Failure, Lab, wait_until

NEEDS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
BOOT_SECONDS_MAX = 60
SHUTDOWN_SECONDS_MAX = 60
MAKE_SECONDS_MAX = 600


class Machine:
    """The machine. It has no network but its own loopback, as a device whose cable is out."""

    def __init__(self, lab: Lab, suite: str, packages: Sequence[str]) -> None:
        """Makes the root file system."""
        self.lab = lab
        self.root = lab.dir / "root"
        include = ",".join(["systemd", "systemd-sysv", "dbus", *packages])
        lab.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", suite, str(self.root)],
                seconds=MAKE_SECONDS_MAX)
        self.boots = 0
        self.first = 0
        """Process id of the machine's first process."""

    def boot(self) -> None:
        """Starts the machine and waits until systemd says that it is up."""
        self.boots += 1
        nspawn = self.lab.spawn(f"boot-{self.boots}", ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit",
                                                       "--private-network", f"--directory={self.root}", "--boot"])

        def first() -> int:
            found = subprocess.run(["pgrep", "--parent", str(nspawn.pid)], capture_output=True, text=True, check=False)
            return int(found.stdout.split()[0]) if found.stdout.split() else 0

        self.first = int(wait_until("the machine has a first process", first, BOOT_SECONDS_MAX))
        wait_until("the machine is up", lambda: self.attempt("systemctl", "is-system-running")[1].strip()
                   in ("running", "degraded"), BOOT_SECONDS_MAX)

    def shut_down(self) -> None:
        """Ends the machine as its power button would."""
        self.attempt("systemctl", "poweroff")
        wait_until("the machine is off", lambda: not self.is_up(), SHUTDOWN_SECONDS_MAX)
        self.lab.stop(f"boot-{self.boots}")

    def is_up(self) -> bool:
        """Whether its first process is there."""
        return Path(f"/proc/{self.first}").exists()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self.first}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
                "--", *argv]

    def run(self, *argv: str, seconds: float = 60) -> str:
        """Runs a command in it and returns its output; raises `Failure` on another status than 0."""
        return self.lab.run(self._inside(argv), seconds=seconds, log="machine")

    def attempt(self, *argv: str, seconds: float = 60) -> tuple[int, str]:
        """Runs a command that may fail; returns its status and all that it says."""
        return self.lab.attempt(self._inside(argv), seconds=seconds, log="machine")

    def give(self, file: Path, to: str) -> str:
        """Copies a file into it, and returns its path there."""
        target = self.root / to.lstrip("/")
        if not target.parent.is_dir():
            raise Failure(f"no directory for {to}")
        target.write_bytes(file.read_bytes())
        target.chmod(file.stat().st_mode & 0o777)
        return to

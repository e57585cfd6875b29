"""One run on this machine: its directory, its processes and their logs, and the packages it needs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

COMMAND_SECONDS_MAX = 60
"""Deadline of a command that says no other."""
STOP_SECONDS_MAX = 10
"""What a process gets between SIGTERM and SIGKILL."""
LOG_TAIL_LINES = 15
"""Lines of each log that are shown after a failure."""
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
"""The distribution's programs before a machine's own: its daemons and clients belong together."""


class Failure(Exception):
    """Something that the run demands is not so; the message says what."""


def say(text: str = "") -> None:
    """Prints a line at once, also into a pipe."""
    print(text, flush=True)


class Findings:
    """What was demanded of a run and did not hold."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def demand(self, what: str, holds: bool) -> None:
        """Notes a failure unless `holds`."""
        say(f"   {'ok  ' if holds else 'FAIL'} {what}")
        if not holds:
            self.failures.append(what)


@contextlib.contextmanager
def section(title: str) -> Iterator[None]:
    """A heading before, the time after."""
    say(f"── {title}")
    begun = time.monotonic()
    yield
    say(f"   {time.monotonic() - begun:.1f} s")


def wait_until(what: str, condition: Callable[[], object], seconds: float) -> object:
    """Polls `condition` until it is true (which it returns); raises `Failure` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.05)


def install_missing(commands: dict[str, str]) -> None:
    """Installs the distribution's package of every command that is missing (`commands`: command → package)."""
    missing = sorted({package for command, package in commands.items() if not shutil.which(command, path=SYSTEM_PATH)})
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Daemons that a package would start belong to the machine, not to this run: forbid it while we install.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *arguments], check=True, env=env, stdin=subprocess.DEVNULL, timeout=600)
    finally:
        if ours:
            policy.unlink()


class Lab:
    """Directory, processes and lock of one run. Use it as a context manager."""

    def __init__(self, prefix: str, keep: bool, show_logs: bool = True, parent: Path | None = None) -> None:
        """`prefix` begins the names of all that the run makes; with `keep` the directory stays after success. It is made
        in `parent`, or where temporary files are.

        With `show_logs` the ends of all logs are printed after a failure.
        """
        self.prefix = prefix
        self.keep = keep
        self.show_logs = show_logs
        self.parent = parent
        self.failed = False
        self._processes: list[tuple[str, subprocess.Popen]] = []
        self._lock = open(f"/run/lock/{prefix}lock", "w", encoding="utf-8")
        self.dir = Path()
        self.logs = Path()

    def __enter__(self) -> Lab:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"another run holds {self._lock.name}") from None
        os.umask(0o022)  # nodes run as another user and read what is written here
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.dir = Path(tempfile.mkdtemp(prefix=self.prefix, dir=self.parent))
        self.dir.chmod(0o755)
        self.logs = self.dir / "logs"
        self.logs.mkdir()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.failed = self.failed or kind is not None
        for name, _ in reversed(self._processes[:]):
            self.stop(name)
        if self.failed and self.show_logs:
            self._show_logs()
        if self.failed or self.keep:
            say(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        self._lock.close()

    def environment(self, **more: str) -> dict[str, str]:
        """A process's environment: nothing of the caller's (proxies, credentials), a home of the run's own."""
        home = self.dir / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": SYSTEM_PATH, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(self.dir), **more}

    def run(self, argv: Sequence[str], *, seconds: float = COMMAND_SECONDS_MAX, log: str = "commands",
            env: dict[str, str] | None = None, stdin: str = "") -> str:
        """Runs a command to its end and returns its output; raises `Failure` on another status than 0."""
        status, output = self._finish(argv, seconds, log, env, stdin)
        if status != 0:
            raise Failure(f"status {status}: {' '.join(argv)}: {self.last_line(log)}")
        return output

    def attempt(self, argv: Sequence[str], *, seconds: float = COMMAND_SECONDS_MAX,
                log: str = "commands") -> tuple[int, str]:
        """Runs a command that may fail; returns its status and all that it says."""
        return self._finish(argv, seconds, log, None, "", together=True)

    def _finish(self, argv: Sequence[str], seconds: float, log: str, env: dict[str, str] | None, stdin: str,
                together: bool = False) -> tuple[int, str]:
        """Runs a command to its end; returns its status and its output, with `together` also what it complains of."""
        env = self.environment() if env is None else env
        words = " ".join(argv)
        with open(self.logs / f"{log}.log", "a", encoding="utf-8") as file:
            file.write(f"$ {words}\n")
            file.flush()
            stderr = subprocess.STDOUT if together else file
            # A process group of its own, so that a deadline ends the helpers that a runtime starts too.
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env,
                                       text=True, start_new_session=True)
            try:
                output, _ = process.communicate(stdin, timeout=seconds)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise Failure(f"no end after {seconds:.0f} s: {words}") from None
                raise
            file.write(output)
        return process.returncode, output

    def spawn(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None,
              streams: tuple[int, int] | None = None) -> subprocess.Popen:
        """Starts a process that stays; its output goes to the log `name`. With `streams` these are its standard input
        and output instead (or `subprocess.PIPE`)."""
        env = self.environment() if env is None else env
        with open(self.logs / f"{name}.log", "a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(argv)}\n")
            file.flush()
            stdin, stdout = streams or (subprocess.DEVNULL, file)
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=file, env=env, start_new_session=True)
        self._processes.append((name, process))
        return process

    def pid(self, name: str) -> int:
        """Process id of a process that `spawn` started and that still runs."""
        process = next(process for known, process in self._processes if known == name)
        if process.poll() is not None:
            raise Failure(f"{name} ended with status {process.returncode}")
        return process.pid

    def stop(self, name: str) -> None:
        """Ends a process: SIGTERM, then SIGKILL. No process of that name: nothing to do."""
        for entry in [entry for entry in self._processes if entry[0] == name]:
            self._processes.remove(entry)
            process = entry[1]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    say(f"   {name} had to be killed")

    def last_line(self, log: str) -> str:
        """The last line of a log."""
        text = (self.logs / f"{log}.log").read_text(encoding="utf-8", errors="replace").strip()
        return text.rpartition("\n")[2]

    def kill(self, name: str) -> None:
        """Ends a process at once, by SIGKILL: what a power cut is to it."""
        os.kill(self.pid(name), signal.SIGKILL)
        self.stop(name)

    def _show_logs(self) -> None:
        for log in sorted(self.logs.iterdir()):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            say(f"── {log} ({len(lines)} lines), the end of it:")
            for line in lines[-LOG_TAIL_LINES:]:
                say(f"   {line[:300]}")

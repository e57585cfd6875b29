"""The real registry: docker-registry with basic authentication over TLS, under a CA of its own."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .host import Failure, Lab, wait_until
from .image import Image, build, read, recipe_digest
from .net import WAN_IP, Site

HOST = "registry.e2e.test"
"""Name of the registry. On the default port: a port cannot be part of a path prefix in image names."""
USER = "device"
TAG = "1.0"
REPOSITORIES = {HOST: "fleet/camera", "docker.io": "library/camera"}
"""Where the image is, by the registry's name for clients. The same registry plays docker.io for Docker's graph
drivers, which ask mirrors for no other."""
START_SECONDS_MAX = 10


@dataclass(frozen=True)
class Registry:
    """A running registry, and what a client needs for it."""

    image: Image | None
    """What it has, if that is one image of an OCI layout."""
    hosts: Path
    ca_file: Path
    password: str


def prepare(lab: Lab, cache: Path, key: str | None = None, make: Callable[[Lab, Path], Image] = build) -> Path:
    """Directory with the image's layout and a registry's storage that it was pushed to; made once, then cached.

    `key` names it.
    """
    def fill(directory: Path) -> None:
        make(lab, directory / "layout")
        push(lab, directory / "storage", {f"{repository}:{TAG}": directory / "layout"
                                          for repository in REPOSITORIES.values()})

    return cached(cache, key or recipe_digest(), fill)


def cached(cache: Path, key: str, fill: Callable[[Path], None]) -> Path:
    """A directory that `fill` filled, in this run or an earlier one. The cache holds one, the last."""
    prepared = cache / f"image-{key}"
    if not prepared.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob("image-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            growing = Path(scratch) / "prepared"
            growing.mkdir()
            fill(growing)
            growing.rename(prepared)
    return prepared


def start(lab: Lab, site: Site, prepared: Path, anonymous: bool) -> Registry:
    """Starts the registry in the WAN's namespace, on the storage of `prepare`, which it may only read."""
    return replace(serve(lab, site, prepared / "storage", anonymous), image=read(prepared / "layout"))


def serve(lab: Lab, site: Site, storage: Path, anonymous: bool, writable: bool = False) -> Registry:
    """Starts the registry in the WAN's namespace, on a storage that it may only read unless it is `writable`."""
    directory = lab.dir / "registry"
    directory.mkdir(exist_ok=True)
    password = secrets.token_urlsafe(16)
    ca_file = _certificates(lab, directory)
    htpasswd = lab.run(["htpasswd", "-niB", USER], stdin=password)
    (directory / "htpasswd").write_text(htpasswd.strip() + "\n", encoding="utf-8")
    _serve(lab, site.within(site.wan, []), "registry", {
        "storage": {"filesystem": {"rootdirectory": str(storage)},
                    "maintenance": {"readonly": {"enabled": not writable}}},
        "auth": {} if anonymous else {"htpasswd": {"realm": HOST, "path": str(directory / "htpasswd")}},
        "http": {"addr": f"{WAN_IP}:443",
                 "tls": {"certificate": str(directory / "server.crt"), "key": str(directory / "server.key")}},
    })
    hosts = lab.dir / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{WAN_IP} {HOST}\n", encoding="utf-8")

    def status(*credentials: str) -> str:
        return lab.run(site.within(site.wan, [
            "curl", "--silent", "--cacert", str(ca_file), *credentials, "--output", "/dev/null", "--write-out",
            "%{http_code}", "--retry", "9", "--retry-connrefused", "--retry-delay", "1", f"https://{HOST}/v2/"], hosts))

    wait_until("the registry takes the password", lambda: status("--user", f"{USER}:{password}") == "200",
               START_SECONDS_MAX)
    if not anonymous and status() != "401":
        raise Failure("the registry answers without a password")
    return Registry(None, hosts, ca_file, password)


def restart(lab: Lab, site: Site) -> None:
    """Starts a registry again that `serve` started and that was ended, as it was."""
    lab.spawn("registry", [*site.within(site.wan, []), "docker-registry", "serve", str(lab.dir / "registry.yml")])


def run_logged_in(lab: Lab, site: Site, served: Registry, ns: str, argv: list[str], seconds: float) -> str:
    """Runs a client in a namespace that is logged in at the registry and trusts its certificate; returns what it prints."""
    config = lab.dir / "docker"
    config.mkdir(exist_ok=True)
    login = base64.b64encode(f"{USER}:{served.password}".encode()).decode()
    (config / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": login}}}), encoding="utf-8")
    env = lab.environment(DOCKER_CONFIG=str(config), SSL_CERT_FILE=str(served.ca_file))
    return lab.run(site.within(ns, argv, served.hosts), seconds=seconds, log="push", env=env)


def push(lab: Lab, storage: Path, images: dict[str, Path], back: dict[str, Path] | None = None,
         then: str = "true") -> None:
    """Pushes OCI layouts into a registry's storage, by their names there; in a namespace where nothing else listens.

    Layers that are not compressed are compressed on their way. `back` says where to copy what came of an image, `then` is a
    command of the shell that finds the registry at 127.0.0.1:5000, without TLS.
    """
    loopback = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    config = _config(lab, "push", {"storage": {"filesystem": {"rootdirectory": str(storage)}},
                                   "http": {"addr": "127.0.0.1:5000"}})
    copies = " && ".join([
        *(f"skopeo copy --quiet --all --insecure-policy --dest-tls-verify=false --retry-times 3 "
          f"oci:{layout} docker://127.0.0.1:5000/{name}" for name, layout in images.items()),
        *(f"skopeo copy --quiet --all --insecure-policy --src-tls-verify=false docker://127.0.0.1:5000/{name} oci:{layout}"
          for name, layout in (back or {}).items())])
    script = (f"docker-registry serve {config} & registry=$!; trap 'kill $registry' EXIT; "
              "curl --silent --output /dev/null --retry 9 --retry-connrefused --retry-delay 1 http://127.0.0.1:5000/v2/ "
              f"&& {copies} && {then}")
    lab.run([*loopback, "sh", "-c", script], seconds=180, log="push")


def retag(storage: Path, repository: str, tag: str, digest: str) -> None:
    """Has a tag of a registry's storage stand for something else that was pushed there."""
    directory = storage / f"docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}"
    for link in (directory / "index/sha256" / digest.removeprefix("sha256:") / "link", directory / "current/link"):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(digest, encoding="utf-8")


def _certificates(lab: Lab, directory: Path) -> Path:
    """Makes a CA and the server's certificate, for a day."""
    def openssl(*arguments: str) -> None:
        lab.run(["openssl", *arguments])

    ca, server = directory / "ca", directory / "server"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-days", "1", "-subj", "/CN=layermesh e2e CA", "-keyout", f"{ca}.key", "-out",
            f"{ca}.crt", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *key, "-subj", f"/CN={HOST}", "-keyout", f"{server}.key", "-out", f"{server}.csr")
    extensions = directory / "server.ext"
    extensions.write_text(f"subjectAltName=DNS:{HOST}\nextendedKeyUsage=serverAuth\n", encoding="utf-8")
    openssl("x509", "-req", "-in", f"{server}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial",
            "-days", "1", "-extfile", str(extensions), "-out", f"{server}.crt")
    return Path(f"{ca}.crt")


def _config(lab: Lab, name: str, config: dict) -> Path:
    """Writes docker-registry's configuration (JSON is YAML)."""
    path = lab.dir / f"{name}.yml"
    path.write_text(json.dumps({"version": 0.1, "log": {"level": "info"}, **config}), encoding="utf-8")
    return path


def _serve(lab: Lab, within: list[str], name: str, config: dict, **env: str) -> None:
    lab.spawn(name, [*within, "docker-registry", "serve", str(_config(lab, name, config))], lab.environment(**env))


def start_cache(lab: Lab, site: Site, registry: Registry, device: str, address: str = "127.0.0.1:7117") -> None:
    """Starts a pull-through cache of the registry, by default where the device's node would be: what is compared with.

    docker-registry 2.8 cannot log in at an upstream with basic authentication: the registry has to be anonymous.
    """
    _serve(lab, site.within(device, [], registry.hosts), f"cache-{device}", {
        "storage": {"filesystem": {"rootdirectory": str(lab.dir / f"cache-{device}")}},
        "proxy": {"remoteurl": f"https://{HOST}"},
        "http": {"addr": address},
    }, SSL_CERT_FILE=str(registry.ca_file))

"""The ways to get one image onto all devices of a site: what is compared with each other.

All but BitTorrent use an unchanged skopeo on every device, into an OCI layout or a plain directory: nothing is unpacked, so
its time is the transfer's. The registry is asked over TLS and without a password, since the caches cannot log in.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import node, registry, usage
from .host import Failure, Lab, wait_until
from .net import WAN_IP, Site
from .runtimes import Mirror, Skopeo
from .usage import Usage

CACHE_PORT = 5000
SEED_PORT = 8080
SWARM_PORT = 6881
START_SECONDS_MAX = 10
PIECE_BYTES = 1 << 20
"""Of the torrent; the slices of nginx have the same size."""
NGINX_COMMON = """daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
"""
NGINX_CACHE = NGINX_COMMON + """http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  proxy_cache_path {dir}/cache keys_zone=images:10m max_size=10g inactive=1d use_temp_path=off;
  upstream registry {{ server {host}:443; keepalive 16; }}
  server {{
    listen {address};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host {host};
    proxy_ssl_server_name on;
    proxy_ssl_name {host};
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {ca_file};
    proxy_cache images;
    proxy_cache_valid 200 206 1d;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 1h;
    proxy_cache_lock_age 1h;
    location ~ /blobs/ {{
      slice 1m;
      proxy_set_header Range $slice_range;
      proxy_cache_key $uri$slice_range;
      proxy_pass https://registry;
    }}
    location / {{
      proxy_cache_key $uri$http_accept;
      proxy_pass https://registry;
    }}
  }}
}}
"""
"""The best that a central cache can do: each megabyte is fetched once, and handed on as soon as it is there."""
NGINX_SEED = NGINX_COMMON + """http {{
  client_body_temp_path {dir}/body;
  log_format sent $body_bytes_sent;
  access_log {dir}/access.log sent;
  server {{ listen {address}; root {root}; }}
}}
"""
MAKE_TORRENT = """
import sys, libtorrent
source, url, piece_bytes, target = sys.argv[1:]
files = libtorrent.file_storage()
libtorrent.add_files(files, source)
torrent = libtorrent.create_torrent(files, int(piece_bytes))
torrent.add_url_seed(url)
libtorrent.set_piece_hashes(torrent, source.rpartition("/")[0])
open(target, "wb").write(libtorrent.bencode(torrent.generate()))
"""
SWARM_CLIENT = """
import pathlib, sys, time, libtorrent
torrent, directory, own, port, *others = sys.argv[1:]
session = libtorrent.session({"listen_interfaces": f"{own}:{port}", "enable_lsd": True, "enable_dht": False,
                              "enable_upnp": False, "enable_natpmp": False})
handle = session.add_torrent({"ti": libtorrent.torrent_info(torrent), "save_path": directory})
for other in others:
    handle.connect_peer((other, int(port)))
while not handle.status().is_seeding:
    time.sleep(0.02)
pathlib.Path(directory, "done").touch()
while True:
    time.sleep(60)
"""
PYTHON = "/usr/bin/python3"
"""The distribution's, which has the distribution's libtorrent."""
NEEDS = {"skopeo": "skopeo", "docker-registry": "docker-registry", "htpasswd": "apache2-utils", "openssl": "openssl",
         "curl": "curl", "ip": "iproute2", "tc": "iproute2", "sysctl": "procps"}
"""Debian's package of each command that every way needs."""


@dataclass
class Bench:
    """What a way runs in."""

    lab: Lab
    site: Site
    served: registry.Registry
    devices: list[str]
    central: str
    """One more machine on the LAN, for what has a centre."""
    binary: Path | None
    into: str = "oci"
    """What clients copy into: `oci`, several layers at once, or `dir`, one after the other."""


class Client:
    """skopeo on one device, under way."""

    def __init__(self, bench: Bench, device: str, argv: list[str], env: dict[str, str]) -> None:
        self.log = f"{device}-client"
        self.cost = Usage()
        with open(bench.lab.logs / f"{self.log}.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                             start_new_session=True)

    def poll(self) -> bool | None:
        """None while it runs, then whether it succeeded."""
        self._reap(os.WNOHANG)
        return None if self._process.returncode is None else self._process.returncode == 0

    def kill(self) -> None:
        """Ends it if it runs."""
        if self.poll() is None:
            self._process.kill()
            self._reap(0)

    def _reap(self, options: int) -> None:
        """Takes note of the process's end and of what it cost, if it has ended."""
        process = self._process
        if process.returncode is None:
            pid, status, resources = os.wait4(process.pid, options)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.cost = Usage(resources.ru_utime + resources.ru_stime, resources.ru_maxrss * 1024)


class Way:
    """One way: each device by itself from the registry, unless a subclass says otherwise."""

    name = "direct"
    needs: dict[str, str] = {}
    """Debian's package of each command that this way needs beside `NEEDS`."""
    mirror: Mirror | None = None
    knows_registry = True
    """Whether clients can reach the registry themselves."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.processes: dict[str, str] = {}
        """What runs beside the clients: name in the lab → namespace."""
        self._skopeos: dict[str, Skopeo] = {}

    def start(self) -> None:
        """Starts what has to run before the clients, and prepares those."""
        for device in self.bench.devices:
            skopeo = Skopeo(self.bench.lab, self.bench.site, device, self.bench.served.image, self.mirror or Mirror())
            skopeo.into = self.bench.into
            skopeo.start()
            if self.mirror is None:
                skopeo.registries_conf.write_text("", encoding="utf-8")
            self._skopeos[device] = skopeo

    def launch(self, device: str) -> Client:
        """Starts the device's client."""
        bench, skopeo = self.bench, self._skopeos[device]
        argv = skopeo.copy(skopeo.reference("tag"))
        hosts = bench.served.hosts if self.knows_registry else None
        env = bench.lab.environment(SSL_CERT_FILE=str(bench.served.ca_file))
        return Client(bench, device, bench.site.within(device, argv, hosts), env)

    def verify(self, device: str) -> None:
        """Compares what the device has with what was pushed; raises `Failure`."""
        self._skopeos[device].verify("")

    def origin_bytes(self) -> int:
        """Payload that the origin says it has sent so far: its log has it for each answer."""
        text = (self.bench.lab.logs / "registry.log").read_text(encoding="utf-8", errors="replace")
        words = (word for line in text.splitlines() if "response completed" in line for word in line.split())
        return sum(int(word.partition("=")[2]) for word in words if word.startswith("http.response.written="))

    def costs(self) -> dict[str, Usage]:
        """What each of the processes has cost so far."""
        return {name: usage.of_session(self.bench.lab.pid(name)) for name in self.processes}

    def extra(self) -> dict:
        """More figures, of this way alone."""
        return {}

    def stop(self) -> None:
        """Ends what `start` started."""
        for name in self.processes:
            self.bench.lab.stop(name)


class RegistryCache(Way):
    """docker-registry as a pull-through cache, which is what most sites are told to use."""

    name = "registry-cache"

    def start(self) -> None:
        bench = self.bench
        address = f"{bench.site.address(bench.central)}:{CACHE_PORT}"
        self.mirror = Mirror(address, prefixed=False)
        super().start()
        registry.start_cache(bench.lab, bench.site, bench.served, bench.central, address)
        self.processes = {f"cache-{bench.central}": bench.central}
        wait_until_answers(bench, bench.central, f"http://{address}/v2/")


class NginxSlice(Way):
    """nginx as a cache that locks and slices."""

    name = "nginx-slice"
    needs = {"nginx": "nginx-core"}

    def start(self) -> None:
        bench = self.bench
        address = f"{bench.site.address(bench.central)}:{CACHE_PORT}"
        self.mirror = Mirror(address, prefixed=False)
        super().start()
        start_nginx(bench, "nginx-cache", bench.central, NGINX_CACHE, address=address, host=registry.HOST,
                    ca_file=bench.served.ca_file)
        self.processes = {"nginx-cache": bench.central}
        wait_until_answers(bench, bench.central, f"http://{address}/v2/")


class BitTorrent(Way):
    """libtorrent with all peers known from the start and a web seed at the origin; no runtime takes part.

    A file with all the image's bytes stands for the image. A client's time starts with its interpreter.
    """

    name = "bittorrent"
    needs = {"nginx": "nginx-core"}

    def start(self) -> None:
        bench, image = self.bench, self.bench.served.image
        self.dir = bench.lab.dir / "bittorrent"
        (self.dir / "root").mkdir(parents=True)
        self.source = self.dir / "root/image"
        with open(self.source, "wb") as whole:
            for platform in image.platforms.values():
                for blob in platform.blobs():
                    whole.write((image.layout / "blobs/sha256" / blob.hex).read_bytes())
        address = f"{WAN_IP}:{SEED_PORT}"
        bench.lab.run([PYTHON, "-c", MAKE_TORRENT, str(self.source), f"http://{address}/image", str(PIECE_BYTES),
                       str(self.dir / "torrent")])
        start_nginx(bench, "web-seed", bench.site.wan, NGINX_SEED, address=address, root=self.dir / "root")
        wait_until_answers(bench, bench.site.wan, f"http://{address}/")
        self.begun_bytes = self.origin_bytes()

    def launch(self, device: str) -> SwarmClient:
        bench = self.bench
        directory = self.dir / device
        directory.mkdir()
        addresses = [bench.site.address(other) for other in bench.devices if other != device]
        argv = [PYTHON, "-c", SWARM_CLIENT, str(self.dir / "torrent"), str(directory), bench.site.address(device),
                str(SWARM_PORT), *addresses]
        self.processes[f"{device}-swarm"] = device
        return SwarmClient(bench, device, argv, directory / "done")

    def verify(self, device: str) -> None:
        bench = self.bench
        try:
            bench.lab.run(["cmp", str(self.source), str(self.dir / device / "image")])
        except Failure as failure:
            raise Failure(f"{device} has other bytes: {failure}") from None

    def origin_bytes(self) -> int:
        log = self.dir / "web-seed/access.log"
        return sum(int(line) for line in log.read_text(encoding="utf-8").split()) if log.exists() else 0

    def stop(self) -> None:
        super().stop()
        self.bench.lab.stop("web-seed")


class SwarmClient:
    """A member of the swarm: it stays after it is done, since others take from it."""

    def __init__(self, bench: Bench, device: str, argv: list[str], done: Path) -> None:
        self.bench, self.log, self.done = bench, f"{device}-swarm", done
        self.cost = Usage()  # counted with the processes that stay
        bench.lab.spawn(self.log, bench.site.within(device, argv))

    def poll(self) -> bool | None:
        """None while it is not done, then whether it succeeded."""
        if self.done.exists():
            return True
        try:
            self.bench.lab.pid(self.log)
        except Failure:
            return False
        return None

    def kill(self) -> None:
        """Ends with the way's processes."""


class Layermesh(Way):
    """A node on every device, all connected with each other before the clients start."""

    name = "layermesh"
    mirror = Mirror()
    knows_registry = False
    """A client whose node fails it, fails: it shall not hide that behind a pull of its own."""

    def start(self) -> None:
        bench = self.bench
        if bench.binary is None:
            raise Failure("no binary")
        super().start()
        self.nodes = {device: node.Node(bench.lab, bench.site, device, bench.binary, bench.served)
                      for device in bench.devices}
        for one in self.nodes.values():
            self.processes[one.name] = one.device
            one.start()
        for one in self.nodes.values():
            one.meet(len(self.nodes) - 1)

    def from_origin(self) -> dict[str, int]:
        """Bytes that each live node has taken from the origin, by device."""
        return {device: one.status()["bytes_from_origin"] for device, one in self.nodes.items()}

    def remove(self, device: str) -> None:
        """Kills the device's node, without a chance to say good-bye."""
        one = self.nodes.pop(device)
        del self.processes[one.name]
        self.bench.lab.kill(one.name)

    def extra(self) -> dict:
        return {"node_bytes_from_origin": self.from_origin(),
                "node_bytes_from_peers": {device: one.status()["bytes_from_peers"]
                                          for device, one in self.nodes.items()}}


WAYS: dict[str, type[Way]] = {way.name: way for way in (Way, RegistryCache, NginxSlice, BitTorrent, Layermesh)}
"""Every way there is, by name."""


def start_nginx(bench: Bench, name: str, ns: str, template: str, **values: object) -> None:
    """Starts an nginx in a namespace, with all its files in a directory of its own."""
    directory = (bench.lab.dir / "bittorrent" if name == "web-seed" else bench.lab.dir) / name
    directory.mkdir()
    config = directory / "nginx.conf"
    config.write_text(template.format(dir=directory, **values), encoding="utf-8")
    argv = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(config)]
    bench.lab.spawn(name, bench.site.within(ns, argv, bench.served.hosts))


def wait_until_answers(bench: Bench, ns: str, url: str) -> None:
    """Waits until something answers HTTP there, whatever it says."""
    def answers() -> bool:
        try:
            bench.lab.run(bench.site.within(ns, ["curl", "--silent", "--output", "/dev/null", "--max-time", "5", url]))
        except Failure:
            return False
        return True

    wait_until(f"{url} answers", answers, START_SECONDS_MAX)

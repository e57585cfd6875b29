"""A status page without its site: the page's files, and a document about devices that are not there.

What the document says moves as a real site's does while an image comes to all of them, so that rates and bars have something
to show. The same seed and the same moment give the same document.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20
SEED = 117
UPLINK = 20_000_000 / 8
"""Bytes a second that come from the registry."""
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CONNECTED = 48
"""Devices that one connects to on a large site."""
LAYERS = (
    ("registry.example/vision/detector-with-a-name-that-is-rather-long:2026.11-rc.4", 412 * MIB),
    ("docker.io/library/postgres:16", 96 * MIB),
    ("registry.example/app:stable", 31 * MIB),
)
HELD = (
    ("docker.io/library/debian:12", 48 * MIB, 1.0),
    ("docker.io/library/nginx:1.27", 61 * MIB, 0.93),
    ("registry.example/app:1.3.9", 30 * MIB, 0.88),
    ("ghcr.io/owner/telemetry-agent:v0.41.2", 17 * MIB, 0.5),
    ("registry.example/vision/models:2026-10", 1900 * MIB, 0.02),
)


def digest(word: str) -> str:
    """A digest that belongs to a word."""
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


class Site:
    """Devices that are not there."""

    def __init__(self, devices: int) -> None:
        chance = random.Random(SEED)
        self.others = devices - 1
        self.ids = ["12D3KooW" + "".join(chance.choice(ALPHABET) for _ in range(44)) for _ in range(devices)]
        self.pace = [chance.uniform(0.93, 1.0) for _ in range(devices)]
        self.share = [chance.random() for _ in range(devices)]
        self.begun = time.monotonic() - 60

    def document(self) -> dict:
        """What the node of the first device would say now."""
        seconds = time.monotonic() - self.begun
        crossed, under_way, layers, own = 0.0, [], [], []
        parts = [[0.0] * len(LAYERS) for _ in self.ids]
        fetchers = [self.ids[at * 37 % len(self.ids)] for at in range(1, 4)]
        left = UPLINK * seconds
        for at, (image, size) in enumerate(LAYERS):
            come = min(size, left)
            left -= come
            crossed += come
            for device, pace in enumerate(self.pace):
                parts[device][at] = come if come >= size and pace > 0.945 else min(come, size) * pace
            others = [parts[device][at] for device in range(1, len(self.ids))]
            holders = sum(part >= size for part in others)
            name = digest(image)
            under_way.append(
                {
                    "digest": name,
                    "size": size,
                    "image": image,
                    "holders": holders,
                    "wanting": self.others - holders,
                    "had_bytes": int(sum(part for part in others if part < size)),
                    "fetching": fetchers if 0 < come < size else [],
                    "uplink_bytes": int(come),
                }
            )
            if parts[0][at] < size:
                sources = [f"peer {self.ids[at % len(self.ids)]}" for at in (7, 12)] if come else []
                own.append({"digest": name, "size": size, "bytes": int(parts[0][at]), "sources": sources, "quiet_s": 0})
        whole = sum(size for _, size in LAYERS)
        devices = [self._device(at, parts[at], fetchers, seconds) for at in range(1, len(self.ids))]
        for image, size, share in HELD:
            holders = max(1, sum(drawn < share for drawn in self.share[: CONNECTED + 1]))
            layers.append(
                {
                    "digest": digest(image),
                    "size": size,
                    "image": image,
                    "holders": holders,
                    "here": self.share[0] < share,
                }
            )
        lately = [
            {
                "digest": blob["digest"],
                "size": blob["size"],
                "bytes": blob["uplink_bytes"],
                "ago_s": 0,
                "holders": blob["holders"],
            }
            for blob in under_way
            if blob["uplink_bytes"]
        ]
        images = [
            {
                "image": layer["image"],
                "digest": digest(layer["image"] + " index"),
                "bytes": layer["size"],
                "layers": 5,
                "holders": layer["holders"],
                "here": layer["here"],
            }
            for layer in layers
        ]
        return {
            "node": self._node(seconds, own, int(sum(parts[0])), whole),
            "problems": PROBLEMS,
            "devices": devices,
            "devices_total": len(devices),
            "under_way": under_way,
            "under_way_total": len(under_way),
            "images": sorted(images, key=lambda image: image["image"]),
            "tags_total": 61,
            "layers": sorted(layers, key=lambda layer: -layer["size"]),
            "layers_total": 412,
            "layers_held_once": 3,
            "uplink": {"bytes": int(crossed) + 9_000 * MIB, "surplus_bytes": 70 * MIB, "lately": lately},
            "rollouts": [self._rollout(at, parts[at], whole) for at in range(len(self.ids))],
        }

    def _device(self, at: int, parts: list[float], fetchers: list[str], seconds: float) -> dict:
        wanted = [(part, size) for part, (_, size) in zip(parts, LAYERS) if part < size]
        connected = at <= CONNECTED
        gives = 900_000 * seconds * self.share[at] if connected and at % 5 == 2 else 0
        takes = 700_000 * seconds * self.share[at] if connected and at % 7 == 3 else 0
        return {
            "peer_id": self.ids[at],
            "connected": connected,
            "address": f"10.20.{at // 250}.{at % 250 + 1}" if connected else None,
            "version": "0.1.0" if connected else None,
            "platform": ("linux/arm64" if at % 3 else "linux/amd64") if connected else None,
            "blobs": 120 + at % 37 if connected else 0,
            "bytes": int(2_000 * MIB * (0.4 + self.share[at])) if connected else 0,
            "wants": len(wanted),
            "wanted_bytes": sum(size for _, size in wanted),
            "had_bytes": int(sum(part for part, _ in wanted)),
            "fetches": int(self.ids[at] in fetchers),
            "penalised": at == 23,
            "received_bytes": int(gives),
            "sent_bytes": int(takes),
        }

    def _node(self, seconds: float, own: list[dict], had: int, whole: int) -> dict:
        return {
            "peer_id": self.ids[0],
            "version": "0.1.0",
            "pid": 1,
            "uptime_s": 86_400 * 3 + seconds,
            "fleet": "default",
            "platform": "linux/amd64",
            "addresses": ["/ip4/10.20.0.1/tcp/7118"],
            "listen": {
                "mirror": "127.0.0.1:7117",
                "peers": "0.0.0.0:7118",
                "bulk": "0.0.0.0:7119",
                "status": "127.0.0.1:7120",
            },
            "peers": min(CONNECTED, self.others),
            "blobs": 143,
            "store_bytes": 3_412 * MIB,
            "partial_bytes": had,
            "attached_blobs": 0,
            "attached_bytes": 0,
            "pinned_bytes": 640 * MIB,
            "quota": 14_900 * MIB,
            "disk_free": 12_000 * MIB,
            "disk_free_min": 64 * MIB,
            "disk_size": 29_800 * MIB,
            "bytes_from_origin": 310 * MIB,
            "bytes_from_peers": 3_600 * MIB + had,
            "bytes_to_peers": 5_100 * MIB,
            "bytes_to_runtimes": 3_900 * MIB,
            "bytes_discarded": 2 * MIB,
            "uplink_bytes": 9_000 * MIB,
            "uplink_surplus_bytes": 70 * MIB,
            "penalised": 1,
            "origins": [
                {"registry": "docker.io", "reachable": False},
                {"registry": "registry.example", "reachable": True},
            ],
            "transfers": own,
            "releases": RELEASES,
            "admission": {
                "mode": "fleet",
                "authorities": [self.ids[-1]],
                "members": 199,
                "revocations": 1,
                "refused": {"expired": 2},
                "refused_by_peers": {},
            },
        }

    def _rollout(self, at: int, parts: list[float], whole: int) -> dict:
        held = int(sum(parts))
        release = {
            "channel": "stable",
            "version": "1.4.0",
            "complete": held >= whole,
            "total": whole,
            "held": held,
            "bytes_per_s": 0,
            "from_origin": 0,
            "waits_for": "",
        }
        before = {
            **release,
            "version": "1.3.9",
            "complete": self.share[at] < 0.97,
            "total": 180 * MIB,
            "held": 180 * MIB,
        }
        return {"peer_id": self.ids[at], "platform": "linux/amd64", "refused": "", "releases": [release, before]}


PROBLEMS = [
    {
        "severity": "warning",
        "what": "The registry docker.io does not answer.",
        "next": "What the site holds is served all the same. The node asks again by itself; if the uplink is up, look at the "
        "registry's address and credentials.",
    },
    {
        "severity": "warning",
        "what": "Other devices were not let in since this one started: expired (2).",
        "next": "If they belong to the fleet, admit them with `layermesh fleet admit`.",
    },
    {
        "severity": "warning",
        "what": "1 device may have sent wrong bytes and is not asked for any, for now.",
        "next": "The log of this device names it. Bad memory or a bad disk is the usual cause.",
    },
]
RELEASES = {
    "channels": ["stable"],
    "repository": "fleet",
    "root_version": 1,
    "version": 14,
    "signed": "2026-11-01T08:00:00Z",
    "expires": "2027-02-01T08:00:00Z",
    "expired": False,
    "clock": True,
    "refused": None,
    "refusals": {},
    "releases": [],
}


def hostile(value: object, word: str) -> object:
    """A document whose words are all another one, but for those that the page goes by; also where it is a name of something."""
    kept = {"peer_id", "digest", "severity", "mode", "fetching", "sources", "expires", "signed"}
    if isinstance(value, dict):
        return {key: one if key in kept else hostile(one, word) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, word) for one in value]
    return word if isinstance(value, str) else value


class Server:
    """Serves files by path, as (media type and further headers, bytes), and what `document` says at /v1/site."""

    def __init__(self, files: dict[str, tuple[dict[str, str], bytes]], document: object) -> None:
        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def do_GET(self) -> None:  # pylint: disable=invalid-name
                """Answers."""
                found = files.get(self.path)
                if self.path == "/v1/site":
                    found = ({"content-type": "application/json"}, json.dumps(document()).encode())
                headers, body = found or ({"content-type": "text/plain"}, b"no such path\n")
                self.send_response(200 if found else 404)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()

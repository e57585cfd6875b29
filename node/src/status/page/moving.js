// What moves on the site, how fast, and what came over its uplink.

import { attribute, bar, breaking, by, fill, list, make, show, text } from "./dom.js";
import * as words from "./words.js";

/** Rates are over so many answers: single seconds jump. */
const RATE_ANSWERS = 4;
const FLOWS_MAX = 8;
const UNDER_WAY_MAX = 6;
const LATELY_S = 3600;

const byKey = (items, key) => new Map(items.map((item) => [item[key], item]));

/** An answer, with its parts by their names. */
const indexed = (site) => ({
  at: site.node.uptime_s,
  devices: byKey(site.devices, "peer_id"),
  transfers: byKey(site.node.transfers, "digest"),
  blobs: byKey(site.under_way, "digest"),
});

/** How much of a figure came per second lately. `of` takes an indexed answer and says the figure, or undefined. */
function perSecond(of) {
  const known = history.filter((then) => of(then) !== undefined);
  if (known.length < 2) return 0;
  const [first, last] = [known[0], known[known.length - 1]];
  return last.at > first.at ? Math.max(0, (of(last) - of(first)) / (last.at - first.at)) : 0;
}

/** The answers that rates are over, the latest last. */
let history = [];

const now = () => history[history.length - 1];

/** Takes an answer in. The same one again says nothing of rates; a node that was started again counts from nothing. */
export function remember(site) {
  if (site.node.uptime_s < (now()?.at ?? 0)) history = [];
  if (now()?.at !== site.node.uptime_s) history = [...history, indexed(site)].slice(-RATE_ANSWERS);
}

export const deviceOf = (peerId) => now().devices.get(peerId);
const transferOf = (digest) => now().transfers.get(digest);
const blobOf = (digest) => now().blobs.get(digest);

/** Everything that moves: from whom to whom, what, and how fast. The fastest first. */
export function flowsOf(site) {
  const me = site.node.peer_id;
  const flows = [];
  for (const device of site.devices) {
    const id = device.peer_id;
    const came = perSecond((then) => then.devices.get(id)?.received_bytes);
    const what = site.node.transfers.filter((transfer) => transfer.sources.includes(`peer ${id}`));
    if (came > 0)
      flows.push({ kind: "in", from: id, to: me, perSecond: came, what: what.map((transfer) => transfer.digest) });
    const went = perSecond((then) => then.devices.get(id)?.sent_bytes);
    if (went > 0) flows.push({ kind: "out", from: me, to: id, perSecond: went, what: [] });
  }
  const fetched = new Map();
  for (const blob of site.under_way) {
    const came = perSecond((then) => then.blobs.get(blob.digest)?.uplink_bytes);
    for (const id of blob.fetching) {
      const flow = fetched.get(id) ?? { kind: "registry", from: "registry", to: id, perSecond: 0, what: [] };
      // Who brought how much of a blob is not told, only how much came of it.
      flow.perSecond += came / blob.fetching.length;
      flow.what.push(blob.digest);
      fetched.set(id, flow);
    }
  }
  flows.push(...fetched.values());
  return flows.sort((one, other) => other.perSecond - one.perSecond);
}

/** What crossed the uplink lately or is about to, against what one copy of it is. */
function uplinkOf(site) {
  const blobs = new Map();
  for (const blob of site.uplink.lately.filter((blob) => blob.ago_s <= LATELY_S)) {
    blobs.set(blob.digest, { bytes: blob.bytes, size: blob.size ?? blob.bytes, devices: blob.holders });
  }
  for (const blob of site.under_way) {
    const own = transferOf(blob.digest) ? 1 : 0;
    const crossed = blobs.get(blob.digest)?.bytes ?? blob.uplink_bytes;
    if (blob.holders > 0 && crossed === 0) continue;
    blobs.set(blob.digest, { bytes: crossed, size: blob.size ?? crossed, devices: blob.holders + blob.wanting + own });
  }
  const sum = (of) => [...blobs.values()].reduce((total, blob) => total + of(blob), 0);
  return {
    crossed: sum((blob) => blob.bytes),
    copy: sum((blob) => blob.size),
    alone: sum((blob) => blob.size * Math.max(1, blob.devices)),
  };
}

export function showUplink(site) {
  const { crossed, copy, alone } = uplinkOf(site);
  const quiet = copy === 0;
  text(
    by("uplink-lead"),
    quiet
      ? "Nothing came over the uplink in the last hour."
      : `${words.bytes(crossed)} came over the uplink in the last hour. Each device for itself would have needed ${words.bytes(alone)}.`,
  );
  const parent = by("uplink");
  show(parent, !quiet);
  if (quiet) return;
  if (!parent.firstElementChild) {
    const track = bar("What came over the uplink, of one copy");
    track.classList.add("uplink");
    track.append(make("span", "surplus"), make("span", "line"));
    parent.append(track, make("p", "scale", make("span", "one")));
  }
  const [track, scale] = parent.children;
  const whole = Math.max(copy * 1.12, crossed * 1.02);
  fill(track, Math.min(crossed, copy) / whole, "registry");
  attribute(track, "aria-valuenow", Math.round((crossed / copy) * 100));
  attribute(track, "aria-valuetext", `${words.bytes(crossed)}; one copy is ${words.bytes(copy)}`);
  const place = `${((copy / whole) * 100).toFixed(1)}%`;
  track.querySelector(".surplus").style.left = place;
  track.querySelector(".surplus").style.width = `${((Math.max(0, crossed - copy) / whole) * 100).toFixed(1)}%`;
  track.querySelector(".line").style.left = place;
  const copies = (crossed / copy).toFixed(2);
  text(
    scale.firstElementChild,
    `one copy is ${words.bytes(copy)}; ${crossed < copy ? `${copies} of it came so far` : `${copies} copies came`}`,
  );
}

export function showUnderWay(site, names) {
  const nobody = site.under_way.length === 0;
  const shown = site.under_way.slice(0, UNDER_WAY_MAX);
  const waits = site.node.transfers.filter((transfer) => transfer.waits_for).length;
  text(
    by("under-way-lead"),
    nobody
      ? "No device of the site is getting a layer."
      : `${words.counted(site.under_way_total, "layer", "layers")} on the way to devices of the site` +
          (shown.length < site.under_way_total
            ? `; the largest ${words.count(shown.length)}:`
            : waits > 0
              ? `, ${words.count(waits)} of them held back here:`
              : ":"),
  );
  list(
    by("under-way"),
    shown,
    (blob) => blob.digest,
    (blob) => {
      const title = make("p", "title", make("span", "name"), make("span", "size"));
      attribute(title.firstElementChild, "title", blob.digest);
      return make(
        "li",
        "",
        title,
        bar("On this device"),
        make("p", "here"),
        bar("On the other devices"),
        make("p", "there"),
      );
    },
    (row, blob) => updateUnderWay(row, blob, site, names),
  );
}

function updateUnderWay(row, blob, site, names) {
  const [title, hereBar, here, thereBar, there] = row.children;
  const own = transferOf(blob.digest);
  const held = site.layers.some((layer) => layer.digest === blob.digest && layer.here);
  breaking(title.firstElementChild, words.layerName(blob));
  text(title.lastElementChild, blob.size === null ? "size not known yet" : words.bytes(blob.size));
  show(hereBar, own !== undefined);
  if (own) {
    fill(
      hereBar,
      words.share(own.bytes, own.size ?? 0),
      own.sources.some((source) => source.startsWith("origin ")) ? "registry" : "",
    );
    const speed = perSecond((then) => then.transfers.get(blob.digest)?.bytes);
    const left = own.size && speed > 0 ? `, ${words.duration((own.size - own.bytes) / speed)} left` : "";
    const doing =
      own.sources.length > 0
        ? `${words.rate(speed)}${left}`
        : own.waits_for
          ? `waits for ${own.waits_for}`
          : "waits for its turn";
    text(
      here,
      own.size === null
        ? "this device has just begun"
        : `this device ${words.percent(words.share(own.bytes, own.size))}, ${doing}`,
    );
  } else {
    text(here, held ? "this device holds it" : "this device does not want it");
  }
  const others = blob.holders - (held ? 1 : 0) + blob.wanting;
  show(thereBar, others > 0 && blob.size !== null);
  const part = words.share(
    (blob.holders - (held ? 1 : 0)) * (blob.size ?? 0) + blob.had_bytes,
    others * (blob.size ?? 0),
  );
  fill(thereBar, part, "soft");
  const by = blob.fetching.map((id) => names.get(id) ?? words.shortId(id));
  const fetched = by.length > 0 ? `; fetched by ${by.join(", ")}` : "";
  const holders = blob.holders - (held ? 1 : 0);
  const whole =
    holders === 0
      ? "none of them has all of it"
      : `${words.count(holders)} ${holders === 1 ? "has" : "have"} all of it`;
  const uplink = blob.uplink_bytes > 0 ? `, ${words.bytes(blob.uplink_bytes)} over the uplink` : "";
  text(
    there,
    others > 0
      ? `${words.counted(others, "other device", "other devices")} ${words.percent(part)}, ${whole}${fetched}${uplink}`
      : `no other device wants it${fetched}${uplink}`,
  );
}

const KINDS = { registry: "from a registry", in: "to this device", out: "from this device" };

export function showFlows(names, flows) {
  const moving = flows.filter((flow) => flow.perSecond >= 1 || flow.kind === "registry");
  const total = moving.reduce((sum, flow) => sum + flow.perSecond, 0);
  text(
    by("flows-lead"),
    moving.length === 0
      ? "Nothing moves between this device and others, or from a registry."
      : `${words.rate(total)} in all.` +
          (moving.length > FLOWS_MAX ? ` The fastest ${FLOWS_MAX} of ${words.count(moving.length)}:` : ""),
  );
  const name = (id) => (id === "registry" ? "registry" : (names.get(id) ?? words.shortId(id)));
  list(
    by("flows"),
    moving.slice(0, FLOWS_MAX),
    (flow) => `${flow.from} ${flow.to}`,
    (flow) => {
      const way = make("span", "way", make("span", "from"), make("span", "arrow", "→"), make("span", "to"));
      attribute(way, "title", KINDS[flow.kind]);
      return make("li", flow.kind, way, make("span", "what"), make("span", "rate"));
    },
    (row, flow) => {
      text(row.querySelector(".from"), name(flow.from));
      text(row.querySelector(".to"), name(flow.to));
      const blobs = flow.what.map(blobOf).filter(Boolean);
      const more = blobs.length > 1 ? ` and ${words.count(blobs.length - 1)} more` : "";
      text(row.querySelector(".what"), blobs.length > 0 ? words.layerShort(blobs[0]) + more : "");
      text(row.querySelector(".rate"), flow.perSecond >= 1 ? words.rate(flow.perSecond) : "asked");
    },
  );
}

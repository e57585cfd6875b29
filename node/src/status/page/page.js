// The status page: asks the node once a second and shows what it says.
//
// Invariant: what comes from the network becomes text (textContent) and nothing else; what did not change is not touched,
// so that whoever reads, selects or listens to the page is not disturbed.

import * as words from "./words.js";
import { Picture, legend, stateInWords, stateOf } from "./picture.js";

const INTERVAL_MS = 1000;
const PATIENCE_MS = 4000;
/** Rates are over so many answers: single seconds jump. */
const RATE_ANSWERS = 4;
const FLOWS_MAX = 8;
const UNDER_WAY_MAX = 6;
const LATELY_S = 3600;

const by = (id) => document.getElementById(id);
const state = { site: null, at: 0, history: [], filter: "", sort: { column: "name", down: false }, peerId: null };

// ---- What a page is made of

function make(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** A name that may be long: it breaks where its parts end. */
function breaking(element, value) {
  if (element.textContent === value) return;
  const parts = value.split(/(?<=[/:@_-])/);
  element.replaceChildren(...parts.flatMap((part, index) => (index === 0 ? [part] : [document.createElement("wbr"), part])));
}

/** Words with commands in them, between backticks. */
function prose(element, value) {
  if (element.dataset.said === value) return;
  element.dataset.said = value;
  element.replaceChildren(...value.split("`").map((part, index) => (index % 2 === 1 ? make("code", "", part) : part)));
}

function attribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Brings the children of `parent` in line with `items`; one with the same key keeps its element. */
function list(parent, items, key, build, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const uses = new Map();
  let next = parent.firstElementChild;
  for (const item of items) {
    const use = uses.get(key(item)) ?? 0;
    uses.set(key(item), use + 1);
    const name = use === 0 ? key(item) : `${key(item)}\n${use}`;
    let child = old.get(name);
    if (child) {
      old.delete(name);
    } else {
      child = build(item);
      child.dataset.key = name;
    }
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** A bar that says how much of something there is; parts are shares of the whole, in order. */
function bar(label) {
  const made = make("div", "bar");
  attribute(made, "role", "progressbar");
  attribute(made, "aria-label", label);
  attribute(made, "aria-valuemin", 0);
  attribute(made, "aria-valuemax", 100);
  made.append(make("span", "fill"));
  return made;
}

function fill(element, part, kind = "") {
  attribute(element, "aria-valuenow", Math.round(part * 100));
  const inner = element.firstElementChild;
  const width = `${(part * 100).toFixed(1)}%`;
  if (inner.style.width !== width) inner.style.width = width;
  const name = `fill ${kind}`.trim();
  if (inner.className !== name) inner.className = name;
}

/** Also for SVG, which has no property for it. */
const show = (element, shown) => element.toggleAttribute("hidden", !shown);

// ---- Figures over time

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
  const known = state.history.filter((then) => of(then) !== undefined);
  if (known.length < 2) return 0;
  const [first, last] = [known[0], known[known.length - 1]];
  return last.at > first.at ? Math.max(0, (of(last) - of(first)) / (last.at - first.at)) : 0;
}

const now = () => state.history[state.history.length - 1];
const deviceOf = (peerId) => now().devices.get(peerId);
const transferOf = (digest) => now().transfers.get(digest);
const blobOf = (digest) => now().blobs.get(digest);

/** Everything that moves: from whom to whom, what, and how fast. The fastest first. */
function flowsOf(site) {
  const me = site.node.peer_id;
  const flows = [];
  for (const device of site.devices) {
    const id = device.peer_id;
    const came = perSecond((then) => then.devices.get(id)?.received_bytes);
    const what = site.node.transfers.filter((transfer) => transfer.sources.includes(`peer ${id}`));
    if (came > 0) flows.push({ kind: "in", from: id, to: me, perSecond: came, what: what.map((transfer) => transfer.digest) });
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

// ---- The parts of the page

function showHead(site) {
  const node = site.node;
  text(by("self"), `${words.shortId(node.peer_id)}, ${node.platform}, up ${words.duration(node.uptime_s)}`);
  attribute(by("self"), "title", node.peer_id);
  text(by("about"), `Layermesh ${node.version}, fleet ${node.fleet}, peer id ${node.peer_id}`);
}

const SEVERITIES = { error: "Error", warning: "Warning", note: "Note" };

function showVerdict(site) {
  const worst = site.problems[0]?.severity ?? "none";
  const grave = site.problems.filter((problem) => problem.severity !== "note").length;
  const moving = site.under_way.length > 0;
  const fine = moving ? "All is well, and layers are on their way." : "All is well. Nothing is on its way.";
  const bad = worst === "error" ? "Something does not work." : `${words.counted(grave, "thing needs", "things need")} a look.`;
  text(by("verdict-title"), grave > 0 ? bad : fine);
  by("verdict").className = `card verdict ${grave > 0 ? worst : "none"}`;
  list(by("problems"), site.problems, (problem) => problem.what, (problem) => {
    const entry = make("li", problem.severity, make("span", "badge", SEVERITIES[problem.severity] ?? "Note"), make("p", "what"));
    if (problem.next) entry.append(make("p", "next"));
    return entry;
  }, (entry, problem) => {
    prose(entry.querySelector(".what"), problem.what);
    if (problem.next) prose(entry.querySelector(".next"), problem.next);
  });
}

function tilesOf(site) {
  const node = site.node;
  const came = node.bytes_from_peers + node.bytes_from_origin;
  const held = node.store_bytes + node.partial_bytes;
  const connected = site.devices.filter((device) => device.connected).length;
  const once = site.uplink.bytes - site.uplink.surplus_bytes;
  return [
    {
      key: "devices", number: words.count(site.devices_total + 1), what: site.devices_total === 0 ? "device: this one" : "devices on the site",
      more: site.devices_total > 0 ? `${words.count(connected)} connected with this one` : "no other was found yet",
    },
    {
      key: "saved", number: came > 0 ? words.percent(words.share(node.bytes_from_peers, came)) : "–", what: "came from neighbours",
      more: came > 0 ? `${words.bytes(node.bytes_from_peers)}, and ${words.bytes(node.bytes_from_origin)} from registries` : "nothing was needed yet",
      part: came > 0 ? words.share(node.bytes_from_peers, came) : null,
    },
    {
      key: "given", number: words.bytes(node.bytes_to_peers), what: "given to neighbours",
      more: `${words.bytes(node.bytes_to_runtimes)} to this device's runtimes`,
    },
    {
      key: "copies", number: once > 0 ? (site.uplink.bytes / once).toFixed(2) : "–", what: "copies over the uplink",
      more: once > 0 ? `${words.bytes(site.uplink.bytes)} for the whole site` : "nothing came over it yet",
    },
    {
      key: "held", number: words.bytes(held), what: `in ${words.counted(node.blobs, "layer", "layers")}`,
      more: `may take ${words.bytes(node.quota)}, ${words.bytes(node.pinned_bytes)} pinned`, part: words.share(held, node.quota),
    },
  ];
}

function showTiles(site) {
  list(by("tiles"), tilesOf(site), (tile) => tile.key, () => {
    const meter = make("dd", "meter", make("span", "fill"));
    attribute(meter, "aria-hidden", "true");
    return make("div", "tile", make("dt", ""), make("dd", "number"), make("dd", "more"), meter);
  }, (element, tile) => {
    text(element.querySelector("dt"), tile.what);
    text(element.querySelector(".number"), tile.number);
    text(element.querySelector(".more"), tile.more);
    const meter = element.querySelector(".meter");
    show(meter, tile.part !== undefined && tile.part !== null);
    if (tile.part) meter.firstElementChild.style.width = `${(tile.part * 100).toFixed(1)}%`;
  });
}

function showSite(site, names, flows, picture) {
  const getting = site.devices.filter((device) => device.wants > 0).length;
  const fetching = site.devices.filter((device) => device.fetches > 0).length;
  const lead = site.devices_total === 0
    ? "No other device was found yet. Those on this LAN appear here by themselves."
    : `${words.counted(site.devices_total, "other device", "other devices")}` +
      (getting > 0 ? `; ${words.count(getting)} getting layers` : "; none of them is getting anything") +
      (fetching > 0 ? `, ${words.count(fetching)} of these from a registry` : "") + ".";
  const cut = site.devices.length < site.devices_total ? ` ${words.count(site.devices.length)} are shown.` : "";
  text(by("site-lead"), lead + cut);
  const alone = site.devices_total === 0;
  show(by("picture"), !alone);
  show(by("legend"), !alone);
  picture.show(site, names, flows);
}

function showDevice() {
  const { site, peerId } = state;
  if (!site) return;
  const names = words.deviceNames(site);
  const rows = [];
  if (peerId === site.node.peer_id) {
    const node = site.node;
    rows.push(["Device", "this one"], ["Peer id", node.peer_id], ["Runs", `${node.version} on ${node.platform}`]);
    rows.push(["Holds", `${words.counted(node.blobs, "layer", "layers")}, ${words.bytes(node.store_bytes)}`]);
  } else {
    const device = deviceOf(peerId);
    if (!device) return;
    rows.push(["Device", names.get(peerId)], ["Peer id", peerId], ["State", stateInWords(device)]);
    if (device.version) rows.push(["Runs", `${device.version} on ${device.platform}`]);
    if (device.connected) rows.push(["Holds", `${words.counted(device.blobs, "layer", "layers")}, ${words.bytes(device.bytes)}`]);
    if (device.wants > 0) {
      const part = words.percent(words.share(device.had_bytes, device.wanted_bytes));
      rows.push(["Gets", `${words.counted(device.wants, "layer", "layers")}, has ${part} of ${words.bytes(device.wanted_bytes)}`]);
    }
    if (device.connected) rows.push(["This device", `had ${words.bytes(device.received_bytes)} from it, gave it ${words.bytes(device.sent_bytes)}`]);
  }
  list(by("device"), rows, ([name]) => name, ([name]) => make("div", "", make("dt", "", name), make("dd")), (row, [, value]) => {
    text(row.lastElementChild, value);
  });
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
  return { crossed: sum((blob) => blob.bytes), copy: sum((blob) => blob.size), alone: sum((blob) => blob.size * Math.max(1, blob.devices)) };
}

function showUplink(site) {
  const { crossed, copy, alone } = uplinkOf(site);
  const quiet = copy === 0;
  text(by("uplink-lead"), quiet
    ? "Nothing came over the uplink in the last hour."
    : `${words.bytes(crossed)} came over the uplink in the last hour. Each device for itself would have needed ${words.bytes(alone)}.`);
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
  text(scale.firstElementChild, `one copy is ${words.bytes(copy)}; ${crossed < copy ? `${copies} of it came so far` : `${copies} copies came`}`);
}

function showUnderWay(site, names) {
  const nobody = site.under_way.length === 0;
  const shown = site.under_way.slice(0, UNDER_WAY_MAX);
  const waits = site.node.transfers.filter((transfer) => transfer.waits_for).length;
  text(by("under-way-lead"), nobody
    ? "No device of the site is getting a layer."
    : `${words.counted(site.under_way_total, "layer", "layers")} on the way to devices of the site` +
      (shown.length < site.under_way_total ? `; the largest ${words.count(shown.length)}:` : waits > 0 ? `, ${words.count(waits)} of them held back here:` : ":"));
  list(by("under-way"), shown, (blob) => blob.digest, (blob) => {
    const title = make("p", "title", make("span", "name"), make("span", "size"));
    attribute(title.firstElementChild, "title", blob.digest);
    return make("li", "", title, bar("On this device"), make("p", "here"), bar("On the other devices"), make("p", "there"));
  }, (row, blob) => updateUnderWay(row, blob, site, names));
}

function updateUnderWay(row, blob, site, names) {
  const [title, hereBar, here, thereBar, there] = row.children;
  const own = transferOf(blob.digest);
  const held = site.layers.some((layer) => layer.digest === blob.digest && layer.here);
  breaking(title.firstElementChild, words.layerName(blob));
  text(title.lastElementChild, blob.size === null ? "size not known yet" : words.bytes(blob.size));
  show(hereBar, own !== undefined);
  if (own) {
    fill(hereBar, words.share(own.bytes, own.size ?? 0), own.sources.some((source) => source.startsWith("origin ")) ? "registry" : "");
    const speed = perSecond((then) => then.transfers.get(blob.digest)?.bytes);
    const left = own.size && speed > 0 ? `, ${words.duration((own.size - own.bytes) / speed)} left` : "";
    const doing = own.sources.length > 0 ? `${words.rate(speed)}${left}` : own.waits_for ? `waits for ${own.waits_for}` : "waits for its turn";
    text(here, own.size === null ? "this device has just begun" : `this device ${words.percent(words.share(own.bytes, own.size))}, ${doing}`);
  } else {
    text(here, held ? "this device holds it" : "this device does not want it");
  }
  const others = blob.holders - (held ? 1 : 0) + blob.wanting;
  show(thereBar, others > 0 && blob.size !== null);
  const part = words.share((blob.holders - (held ? 1 : 0)) * (blob.size ?? 0) + blob.had_bytes, others * (blob.size ?? 0));
  fill(thereBar, part, "soft");
  const by = blob.fetching.map((id) => names.get(id) ?? words.shortId(id));
  const fetched = by.length > 0 ? `; fetched by ${by.join(", ")}` : "";
  const holders = blob.holders - (held ? 1 : 0);
  const whole = holders === 0 ? "none of them has all of it" : `${words.count(holders)} ${holders === 1 ? "has" : "have"} all of it`;
  const uplink = blob.uplink_bytes > 0 ? `, ${words.bytes(blob.uplink_bytes)} over the uplink` : "";
  text(there, others > 0
    ? `${words.counted(others, "other device", "other devices")} ${words.percent(part)}, ${whole}${fetched}${uplink}`
    : `no other device wants it${fetched}${uplink}`);
}

const KINDS = { registry: "from a registry", in: "to this device", out: "from this device" };

function showFlows(names, flows) {
  const moving = flows.filter((flow) => flow.perSecond >= 1 || flow.kind === "registry");
  const total = moving.reduce((sum, flow) => sum + flow.perSecond, 0);
  text(by("flows-lead"), moving.length === 0
    ? "Nothing moves between this device and others, or from a registry."
    : `${words.rate(total)} in all.` + (moving.length > FLOWS_MAX ? ` The fastest ${FLOWS_MAX} of ${words.count(moving.length)}:` : ""));
  const name = (id) => (id === "registry" ? "registry" : names.get(id) ?? words.shortId(id));
  list(by("flows"), moving.slice(0, FLOWS_MAX), (flow) => `${flow.from} ${flow.to}`, (flow) => {
    const way = make("span", "way", make("span", "from"), make("span", "arrow", "→"), make("span", "to"));
    attribute(way, "title", KINDS[flow.kind]);
    return make("li", flow.kind, way, make("span", "what"), make("span", "rate"));
  }, (row, flow) => {
    text(row.querySelector(".from"), name(flow.from));
    text(row.querySelector(".to"), name(flow.to));
    const blobs = flow.what.map(blobOf).filter(Boolean);
    const more = blobs.length > 1 ? ` and ${words.count(blobs.length - 1)} more` : "";
    text(row.querySelector(".what"), blobs.length > 0 ? words.layerShort(blobs[0]) + more : "");
    text(row.querySelector(".rate"), flow.perSecond >= 1 ? words.rate(flow.perSecond) : "asked");
  });
}

/** Rows with a bar that says how many of all devices hold something. */
function showHeld(parent, items, devices) {
  list(parent, items, (item) => item.key, (item) => {
    const name = make("span", "name");
    attribute(name, "title", item.title);
    return make("li", "", name, make("span", "size"), bar("Devices that hold it"), make("span", "count"), make("span", "mark"));
  }, (row, item) => {
    const [name, size, held, shown, mark] = row.children;
    breaking(name, item.name);
    text(size, item.size);
    fill(held, words.share(item.holders, devices), item.holders >= devices ? "" : "soft");
    attribute(held, "aria-valuetext", `${item.holders} of ${devices} devices`);
    text(shown, item.count ?? `${words.count(item.holders)} of ${words.count(devices)}`);
    text(mark, item.mark);
  });
}

function showImages(site) {
  const devices = site.devices.filter((device) => device.connected).length + 1;
  const shown = site.images.length;
  text(by("images-lead"), shown === 0
    ? "No image is known by name yet: the first one appears once a runtime, or layermesh pull, asked for it."
    : `${words.counted(shown, "image", "images")} known by name, and how many of the ${words.counted(devices, "connected device", "connected devices")} hold all of each` +
      (site.tags_total > shown ? ` (the site knows ${words.counted(site.tags_total, "tag", "tags")}).` : "."));
  showHeld(by("images"), site.images.map((image) => ({
    key: image.image, name: words.imageName(image.image), title: `${image.image}\n${image.digest}`,
    size: `${words.bytes(image.bytes)}, ${words.counted(image.layers, "layer", "layers")}`,
    holders: image.holders, mark: image.here ? "here" : "",
  })), devices);
}

function showReleases(site) {
  const releases = site.node.releases;
  show(by("releases-card"), releases !== undefined && releases !== null);
  if (!releases) return;
  const followed = releases.channels.length > 0 ? `Follows ${releases.channels.join(", ")}. ` : "";
  const expires = releases.expires ? `${releases.expired ? "Expired" : "Expires"} ${releases.expires.replace("T", " ").replace("Z", " UTC")}.` : "";
  text(by("releases-lead"), releases.repository ? `${followed}Metadata ${words.count(releases.version)} of ${releases.repository}. ${expires}` : `${followed}No metadata was accepted yet.`);
  const rows = new Map();
  for (const device of site.rollouts) {
    for (const release of device.releases) {
      const key = `${release.channel}/${release.version}`;
      const row = rows.get(key) ?? { key, devices: 0, holders: 0, total: 0 };
      row.devices += 1;
      row.holders += release.complete ? 1 : 0;
      row.total = Math.max(row.total, release.total);
      if (device.peer_id === site.node.peer_id) row.own = release;
      rows.set(key, row);
    }
  }
  const most = Math.max(1, ...[...rows.values()].map((row) => row.devices));
  showHeld(by("releases"), [...rows.values()].map((row) => ({
    key: row.key, name: row.key, title: row.key, size: words.bytes(row.total), holders: row.holders,
    count: `${words.count(row.holders)} of ${words.count(row.devices)}`,
    mark: row.own ? (row.own.complete ? "here" : row.own.waits_for || words.percent(words.share(row.own.held, row.own.total))) : "",
  })), most);
}

// ---- The table of devices

const COLUMNS = [
  { id: "name", title: "Device", of: (device, names) => (device.connected ? "" : "\uffff") + names.get(device.peer_id), order: words.compareNames },
  { id: "state", title: "State", of: (device) => stateInWords(device), kind: "wide" },
  { id: "getting", title: "Getting", of: (device) => (device.wants > 0 ? words.share(device.had_bytes, device.wanted_bytes) : -1), shown: (part) => (part < 0 ? "–" : words.percent(part)), kind: "number" },
  { id: "holds", title: "Holds", of: (device) => device.bytes, shown: words.bytes, kind: "number" },
  { id: "from", title: "From it", of: (device) => device.received_bytes, shown: words.bytes, kind: "number wide" },
  { id: "to", title: "To it", of: (device) => device.sent_bytes, shown: words.bytes, kind: "number wide" },
  { id: "platform", title: "Platform", of: (device) => device.platform ?? "", kind: "widest" },
  { id: "version", title: "Version", of: (device) => device.version ?? "", kind: "widest" },
];

function makeHead(update) {
  by("devices-head").append(...COLUMNS.map((column) => {
    const button = make("button", "", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      const same = state.sort.column === column.id;
      state.sort = { column: column.id, down: same ? !state.sort.down : (column.kind ?? "").includes("number") };
      update();
    });
    const cell = make("th", column.kind, button);
    cell.scope = "col";
    cell.dataset.column = column.id;
    return cell;
  }));
}

function showDevices(site, names) {
  const wanted = state.filter.trim().toLowerCase();
  const fits = (device) => [names.get(device.peer_id), device.peer_id, device.platform ?? "", device.version ?? "", stateInWords(device)]
    .some((value) => value.toLowerCase().includes(wanted));
  const column = COLUMNS.find(({ id }) => id === state.sort.column);
  const order = column.order ?? ((one, other) => (typeof one === "number" ? one - other : words.compareNames(one, other)));
  const rows = site.devices.filter(fits).sort((one, other) => order(column.of(one, names), column.of(other, names)) * (state.sort.down ? -1 : 1));
  for (const cell of by("devices-head").children) {
    attribute(cell, "aria-sort", cell.dataset.column === column.id ? (state.sort.down ? "descending" : "ascending") : "none");
  }
  text(by("devices-lead"), site.devices_total === 0
    ? "No other device yet."
    : wanted ? `${words.count(rows.length)} of ${words.counted(site.devices.length, "other device", "other devices")}.`
    : `${words.counted(site.devices_total, "other device", "other devices")}, beside this one.`);
  list(by("devices"), rows, (device) => device.peer_id, (device) => {
    const row = make("tr", "", ...COLUMNS.map((one, index) => {
      const cell = make(index === 0 ? "th" : "td", one.kind);
      if (index === 0) {
        cell.scope = "row";
        cell.append(make("span", "swatch"), make("span", "name"), make("span", "id"));
      }
      return cell;
    }));
    attribute(row, "title", device.peer_id);
    return row;
  }, (row, device) => {
    COLUMNS.forEach((one, index) => {
      const value = one.of(device, names);
      const cell = row.children[index];
      const told = device.connected || !["holds", "from", "to"].includes(one.id);
      if (index > 0) return text(cell, !told ? "–" : one.shown ? one.shown(value) : value || "–");
      const kind = `swatch ${stateOf(device)}`;
      if (cell.children[0].className !== kind) cell.children[0].className = kind;
      text(cell.children[1], device.address ?? words.shortId(device.peer_id));
      text(cell.children[2], device.address ? words.shortId(device.peer_id) : "not connected");
      row.className = device.connected ? "" : "apart-row";
    });
  });
}

function showLayers(site) {
  const devices = site.devices.filter((device) => device.connected).length + 1;
  text(by("layers-lead"), site.layers_total === 0
    ? "No device of the site holds a layer yet."
    : `The connected devices hold ${words.counted(site.layers_total, "layer", "layers")} (and manifests)` +
      (devices === 1 ? "." : site.layers_held_once === 0 ? ", each on at least two devices." : `; ${words.count(site.layers_held_once)} of them on one device alone.`));
  if (!by("layers").parentElement.open) return;
  showHeld(by("layers"), site.layers.map((layer) => ({
    key: layer.digest, name: words.layerName(layer), title: layer.digest, size: words.bytes(layer.size), holders: layer.holders, mark: layer.here ? "here" : "",
  })), devices);
}

// ---- Asking, and saying when nobody answers

function showAll(picture) {
  const { site } = state;
  if (!site) return;
  const names = words.deviceNames(site);
  const flows = flowsOf(site);
  showHead(site);
  showVerdict(site);
  showTiles(site);
  showSite(site, names, flows, picture);
  showDevice();
  showUplink(site);
  showUnderWay(site, names);
  showFlows(names, flows);
  showImages(site);
  showReleases(site);
  showDevices(site, names);
  showLayers(site);
}

function showLive(answers) {
  document.body.classList.toggle("silent", !answers);
  text(by("live-text"), answers ? "live" : "no answer");
  show(by("stale"), !answers);
  if (answers) return;
  const since = state.at ? ` for ${words.duration((Date.now() - state.at) / 1000)}. What you see is from ${new Date(state.at).toLocaleTimeString()}` : "";
  text(by("stale"), `The node does not answer${since}. Asking again each second.`);
}

async function ask() {
  const answer = await fetch("/v1/site", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

function take(site) {
  // A node that was started again counts from nothing.
  if (state.site && site.node.uptime_s < state.site.node.uptime_s) state.history = [];
  state.site = site;
  state.at = Date.now();
  // The same answer again says nothing of how fast things are.
  if (now()?.at !== site.node.uptime_s) state.history = [...state.history, indexed(site)].slice(-RATE_ANSWERS);
}

function makeTheme() {
  const button = by("theme");
  const names = { "": ["Auto", "as the system says"], light: ["Light", "light"], dark: ["Dark", "dark"] };
  const root = document.documentElement;
  const say = () => {
    const [name, colours] = names[root.dataset.theme ?? ""];
    text(button, name);
    attribute(button, "aria-label", `Colours: ${colours}`);
  };
  button.addEventListener("click", () => {
    const next = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    try {
      localStorage.setItem("layermesh-theme", next);
    } catch {
      // It holds until the page is left.
    }
    say();
  });
  say();
}

function start() {
  const picture = new Picture(by("picture"), (peerId) => {
    state.peerId = peerId;
    showDevice();
  });
  const again = () => showAll(picture);
  makeTheme();
  makeHead(again);
  by("legend").append(...legend());
  by("find").addEventListener("input", (event) => {
    state.filter = event.target.value;
    again();
  });
  by("layers").parentElement.addEventListener("toggle", again);
  let timer = 0;
  const round = async () => {
    clearTimeout(timer);
    try {
      take(await ask());
      showLive(true);
      again();
    } catch {
      // The page must say so, whatever went wrong; the browser's console has what it was.
      showLive(false);
    }
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(round, INTERVAL_MS);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) round(); });
  round();
}

start();

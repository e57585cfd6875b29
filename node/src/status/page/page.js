// The status page: asks the node once a second and shows what it says.

import { attribute, by, list, make, prose, show, text } from "./dom.js";
import { find, makeHead, showDevices, showImages, showLayers, showReleases } from "./holding.js";
import { deviceOf, flowsOf, remember, showFlows, showUnderWay, showUplink } from "./moving.js";
import { Picture, legend, stateInWords } from "./picture.js";
import * as words from "./words.js";

const INTERVAL_MS = 1000;
const PATIENCE_MS = 4000;

/** The last answer, when it came, and which device was chosen in the picture. */
const state = { site: null, at: 0, peerId: null };

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
  const bad =
    worst === "error" ? "Something does not work." : `${words.counted(grave, "thing needs", "things need")} a look.`;
  text(by("verdict-title"), grave > 0 ? bad : fine);
  by("verdict").className = `card verdict ${grave > 0 ? worst : "none"}`;
  list(
    by("problems"),
    site.problems,
    (problem) => problem.what,
    (problem) => {
      const entry = make(
        "li",
        problem.severity,
        make("span", "badge", SEVERITIES[problem.severity] ?? "Note"),
        make("p", "what"),
      );
      if (problem.next) entry.append(make("p", "next"));
      return entry;
    },
    (entry, problem) => {
      prose(entry.querySelector(".what"), problem.what);
      if (problem.next) prose(entry.querySelector(".next"), problem.next);
    },
  );
}

function tilesOf(site) {
  const node = site.node;
  const came = node.bytes_from_peers + node.bytes_from_origin;
  const held = node.store_bytes + node.partial_bytes;
  const connected = site.devices.filter((device) => device.connected).length;
  const once = site.uplink.bytes - site.uplink.surplus_bytes;
  return [
    {
      key: "devices",
      number: words.count(site.devices_total + 1),
      what: site.devices_total === 0 ? "device: this one" : "devices on the site",
      more: site.devices_total > 0 ? `${words.count(connected)} connected with this one` : "no other was found yet",
    },
    {
      key: "saved",
      number: came > 0 ? words.percent(words.share(node.bytes_from_peers, came)) : "–",
      what: "came from neighbours",
      more:
        came > 0
          ? `${words.bytes(node.bytes_from_peers)}, and ${words.bytes(node.bytes_from_origin)} from registries`
          : "nothing was needed yet",
      part: came > 0 ? words.share(node.bytes_from_peers, came) : null,
    },
    {
      key: "given",
      number: words.bytes(node.bytes_to_peers),
      what: "given to neighbours",
      more: `${words.bytes(node.bytes_to_runtimes)} to this device's runtimes`,
    },
    {
      key: "copies",
      number: once > 0 ? (site.uplink.bytes / once).toFixed(2) : "–",
      what: "copies over the uplink",
      more: once > 0 ? `${words.bytes(site.uplink.bytes)} for the whole site` : "nothing came over it yet",
    },
    {
      key: "held",
      number: words.bytes(held),
      what: `in ${words.counted(node.blobs, "layer", "layers")}`,
      more: `may take ${words.bytes(node.quota)}, ${words.bytes(node.pinned_bytes)} pinned`,
      part: words.share(held, node.quota),
    },
  ];
}

function showTiles(site) {
  list(
    by("tiles"),
    tilesOf(site),
    (tile) => tile.key,
    () => {
      const meter = make("dd", "meter", make("span", "fill"));
      attribute(meter, "aria-hidden", "true");
      return make("div", "tile", make("dt", ""), make("dd", "number"), make("dd", "more"), meter);
    },
    (element, tile) => {
      text(element.querySelector("dt"), tile.what);
      text(element.querySelector(".number"), tile.number);
      text(element.querySelector(".more"), tile.more);
      const meter = element.querySelector(".meter");
      show(meter, tile.part !== undefined && tile.part !== null);
      if (tile.part) meter.firstElementChild.style.width = `${(tile.part * 100).toFixed(1)}%`;
    },
  );
}

function showSite(site, names, flows, picture) {
  const getting = site.devices.filter((device) => device.wants > 0).length;
  const fetching = site.devices.filter((device) => device.fetches > 0).length;
  const lead =
    site.devices_total === 0
      ? "No other device was found yet. Those on this LAN appear here by themselves."
      : `${words.counted(site.devices_total, "other device", "other devices")}` +
        (getting > 0 ? `; ${words.count(getting)} getting layers` : "; none of them is getting anything") +
        (fetching > 0 ? `, ${words.count(fetching)} of these from a registry` : "") +
        ".";
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
    if (device.connected)
      rows.push(["Holds", `${words.counted(device.blobs, "layer", "layers")}, ${words.bytes(device.bytes)}`]);
    if (device.wants > 0) {
      const part = words.percent(words.share(device.had_bytes, device.wanted_bytes));
      rows.push([
        "Gets",
        `${words.counted(device.wants, "layer", "layers")}, has ${part} of ${words.bytes(device.wanted_bytes)}`,
      ]);
    }
    if (device.connected)
      rows.push([
        "This device",
        `had ${words.bytes(device.received_bytes)} from it, gave it ${words.bytes(device.sent_bytes)}`,
      ]);
  }
  list(
    by("device"),
    rows,
    ([name]) => name,
    ([name]) => make("div", "", make("dt", "", name), make("dd")),
    (row, [, value]) => {
      text(row.lastElementChild, value);
    },
  );
}

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
  const since = state.at
    ? ` for ${words.duration((Date.now() - state.at) / 1000)}. What you see is from ${new Date(state.at).toLocaleTimeString()}`
    : "";
  text(by("stale"), `The node does not answer${since}. Asking again each second.`);
}

async function ask() {
  const answer = await fetch("/v1/site", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

function take(site) {
  remember(site);
  state.site = site;
  state.at = Date.now();
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
    find(event.target.value);
    again();
  });
  by("layers").parentElement.addEventListener("toggle", again);
  let timer = 0;
  const round = async () => {
    clearTimeout(timer);
    const site = await ask().catch(() => null);
    // Before it is shown: a mistake in showing must not end the asking, and is the console's to tell.
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(round, INTERVAL_MS);
    showLive(site !== null);
    if (site === null) return;
    take(site);
    again();
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) round();
  });
  round();
}

start();

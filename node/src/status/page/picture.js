// The picture of a site: this device in the middle, the others on rings around it, the registry above, and what flows.
//
// Invariant: every device has a place, however many they are; the places of those that stay do not depend on what flows.

import * as words from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const CENTRE = { x: 200, y: 236 };
const REGISTRY = { x: 200, y: 20 };
const OUTER = 164;
/** Where names stand beside the dots they need room. */
const NAMED_OUTER = 122;
const INNER = 56;
/** Radii of a device's dot that are tried, the largest first. */
const RADII = [15, 13, 11, 9.5, 8, 7, 6, 5.2, 4.6, 4, 3.4, 2.8, 2.2, 1.7];
/** Beyond so many devices their names would run into each other. */
const NAMED_MAX = 26;

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const round = (number) => Math.round(number * 10) / 10;

/** Rings that hold so many dots, and how large these are. */
function rings(total) {
  for (const radius of RADII) {
    const step = radius * 2.45;
    const found = [];
    let room = 0;
    const outer = total <= NAMED_MAX ? NAMED_OUTER : OUTER;
    for (let ring = outer; ring >= INNER && room < total; ring -= step) {
      const capacity = Math.floor((2 * Math.PI * ring) / step);
      found.push({ ring, capacity });
      room += capacity;
    }
    if (room >= total) return { radius, rings: found, room };
  }
  return { radius: 1.5, rings: [{ ring: OUTER, capacity: total }], room: total };
}

/** A place for each of so many devices. */
export function places(total) {
  const { radius, rings: found, room } = rings(total);
  const at = [];
  let left = total;
  found.forEach(({ ring, capacity }, index) => {
    const here = index === found.length - 1 ? left : Math.min(left, Math.round((total * capacity) / room));
    for (let place = 0; place < here; place += 1) {
      const angle = -Math.PI / 2 + (2 * Math.PI * (place + 0.5)) / here;
      at.push({ x: CENTRE.x + ring * Math.cos(angle), y: CENTRE.y + ring * Math.sin(angle), angle, ring });
    }
    left -= here;
  });
  return { radius, at };
}

/** What a device does, in one word; also its class. */
export function stateOf(device) {
  if (device.penalised) return "distrusted";
  if (device.fetches > 0) return "fetching";
  if (device.wants > 0) return "getting";
  return device.connected ? "idle" : "apart";
}

const STATES = {
  idle: "connected, has what it wants",
  getting: "getting layers",
  fetching: "fetching from a registry",
  apart: "not connected with this device",
  distrusted: "sent wrong bytes",
};

export const stateInWords = (device) => STATES[stateOf(device)];

function arc(radius, part) {
  const angle = 2 * Math.PI * Math.min(part, 0.9999) - Math.PI / 2;
  const end = `${round(radius * Math.cos(angle))} ${round(radius * Math.sin(angle))}`;
  return `M0 ${-radius}A${radius} ${radius} 0 ${part > 0.5 ? 1 : 0} 1 ${end}`;
}

/** A device's dot; `part` of its ring is filled while it gets something. */
function draw(group, state, part, radius) {
  const key = `${state} ${part === null ? "" : Math.round(part * 60)} ${radius}`;
  if (group.dataset.drawn === key) return;
  group.dataset.drawn = key;
  const wide = Math.max(1.2, radius * 0.34);
  const inside = radius - wide / 2;
  const shapes = [element("circle", { r: inside, class: "body", "stroke-width": round(wide) })];
  if (part !== null && part > 0) {
    shapes.push(element("path", { d: arc(round(inside), part), class: "part", "stroke-width": round(wide) }));
  }
  if (state === "fetching" && radius > 3) shapes.push(element("circle", { r: round(radius * 0.3), class: "core" }));
  if (state === "distrusted") {
    shapes.push(element("text", { class: "bang", y: round(radius * 0.42), "font-size": round(radius * 1.3) }, "!"));
  }
  group.replaceChildren(...shapes);
}

/** From one place to another, bent away from the straight line so that there and back are two lines. */
function bend(from, to, by = 0.12) {
  const middle = { x: (from.x + to.x) / 2 - (to.y - from.y) * by, y: (from.y + to.y) / 2 + (to.x - from.x) * by };
  return `M${round(from.x)} ${round(from.y)}Q${round(middle.x)} ${round(middle.y)} ${round(to.x)} ${round(to.y)}`;
}

const width = (perSecond) => round(Math.min(5, 1 + Math.log2(1 + perSecond / 200_000) * 0.6));

export class Picture {
  constructor(svg, chosen) {
    this.svg = svg;
    this.chosen = chosen;
    this.links = element("g", { class: "links" });
    this.flows = element("g", { class: "flows" });
    this.dots = element("g");
    this.names = element("g", { class: "names", "aria-hidden": "true" });
    this.registry = element("g", {
      class: "registry",
      transform: `translate(${REGISTRY.x} ${REGISTRY.y})`,
      "aria-hidden": "true",
    });
    this.registry.append(
      element("rect", { x: -46, y: -15, width: 92, height: 30, rx: 6 }),
      element("text", { y: 4.5 }, "registries"),
    );
    svg.append(this.links, this.flows, this.registry, this.dots, this.names);
    this.drawn = new Map();
    this.order = [];
    svg.addEventListener("keydown", (event) => this.step(event));
    svg.addEventListener("click", (event) => {
      const dot = event.target.closest("[data-peer]");
      if (dot) this.choose(dot.dataset.peer);
    });
  }

  choose(peerId) {
    this.peerId = peerId;
    for (const [id, group] of this.drawn) {
      group.setAttribute("aria-selected", id === peerId);
      if (id === peerId) this.svg.setAttribute("aria-activedescendant", group.id);
    }
    this.chosen(peerId);
  }

  step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const ends = { Home: 0, End: this.order.length - 1 }[event.key];
    if ((by === undefined && ends === undefined) || this.order.length === 0) return;
    event.preventDefault();
    const at = this.order.indexOf(this.peerId);
    this.choose(this.order[ends ?? (at + by + this.order.length) % this.order.length]);
  }

  show(site, names, flows) {
    const others = [...site.devices].sort(
      (one, other) =>
        other.connected - one.connected || words.compareNames(names.get(one.peer_id), names.get(other.peer_id)),
    );
    const { radius, at } = places(others.length);
    const place = new Map([[site.node.peer_id, CENTRE]]);
    others.forEach((device, index) => place.set(device.peer_id, at[index]));
    const own = site.node.transfers;
    const me = {
      peer_id: site.node.peer_id,
      connected: true,
      wants: own.length,
      wanted_bytes: own.reduce((sum, transfer) => sum + (transfer.size ?? 0), 0),
      had_bytes: own.reduce((sum, transfer) => sum + transfer.bytes, 0),
      fetches: own.filter((transfer) => transfer.sources.some((source) => source.startsWith("origin "))).length,
    };
    this.order = [site.node.peer_id, ...others.map((device) => device.peer_id)];
    this.showDots([me, ...others], place, names, radius);
    this.showNames(others, at, names, radius);
    this.showLinks(others, place);
    this.showFlows(flows, place, radius);
    if (!this.drawn.has(this.peerId)) this.choose(site.node.peer_id);
  }

  showDots(devices, place, names, radius) {
    const gone = new Set(this.drawn.keys());
    devices.forEach((device, index) => {
      const id = device.peer_id;
      gone.delete(id);
      let group = this.drawn.get(id);
      if (!group) {
        group = element("g", { id: `dot-${id}`, role: "option", "aria-selected": id === this.peerId });
        group.dataset.peer = id;
        this.drawn.set(id, group);
        this.dots.append(group);
      }
      const state = stateOf(device);
      const getting = device.wants > 0;
      const part = getting ? words.share(device.had_bytes, device.wanted_bytes) : null;
      const { x, y } = place.get(id);
      const where = `translate(${round(x)} ${round(y)})`;
      if (group.getAttribute("transform") !== where) group.setAttribute("transform", where);
      const kind = `dot ${state}${index === 0 ? " me" : ""}`;
      if (group.getAttribute("class") !== kind) group.setAttribute("class", kind);
      const label = `${names.get(id)}: ${stateInWords(device)}${getting ? `, ${words.percent(part)}` : ""}`;
      if (group.getAttribute("aria-label") !== label) group.setAttribute("aria-label", label);
      draw(group, state, part, index === 0 ? 19 : radius);
    });
    for (const id of gone) {
      this.drawn.get(id).remove();
      this.drawn.delete(id);
    }
  }

  /** Beside the dots, where there is room; the middle says what it is below. */
  showNames(others, at, names, radius) {
    const shown = others.length <= NAMED_MAX ? others : [];
    const short = words.shortNames(shown.map((device) => names.get(device.peer_id)));
    const key = short.join("\n");
    if (this.named === key) return;
    this.named = key;
    const labels = short.map((label, index) => {
      const { x, y, angle } = at[index];
      const away = radius + 5;
      const side = Math.cos(angle);
      const anchor = side > 0.35 ? "start" : side < -0.35 ? "end" : "middle";
      const down = anchor === "middle" ? Math.sign(Math.sin(angle)) * (away + 5) + 4 : 4 + Math.sin(angle) * 4;
      return element(
        "text",
        {
          x: round(x + (anchor === "middle" ? 0 : Math.sign(side) * away)),
          y: round(y + down),
          "text-anchor": anchor,
        },
        label,
      );
    });
    this.names.replaceChildren(
      ...labels,
      element("text", { x: CENTRE.x, y: CENTRE.y + 34, "text-anchor": "middle", class: "own" }, "this device"),
    );
  }

  showLinks(others, place) {
    const connected = others.filter((device) => device.connected);
    const key = connected.map((device) => device.peer_id).join() + others.length;
    if (this.linked === key) return;
    this.linked = key;
    this.links.replaceChildren(
      ...connected.map((device) => {
        const { x, y } = place.get(device.peer_id);
        return element("path", { d: `M${CENTRE.x} ${CENTRE.y}L${round(x)} ${round(y)}` });
      }),
    );
  }

  showFlows(flows, place, radius) {
    const drawn = flows.map(({ from, to, perSecond, kind }) => {
      const start = kind === "registry" ? { x: REGISTRY.x, y: REGISTRY.y + 15 } : place.get(from);
      const end = place.get(to);
      if (!start || !end) return null;
      const path = element("path", { d: bend(start, end, kind === "registry" ? 0.05 : 0.12), class: `flow ${kind}` });
      path.style.strokeWidth = `${Math.min(width(perSecond), Math.max(1.4, radius * 0.5))}px`;
      return path;
    });
    // The same lines stay, so that what moves along them does not begin anew each second.
    const old = [...this.flows.children];
    drawn.filter(Boolean).forEach((path, index) => {
      const kept = old[index];
      if (kept) {
        kept.setAttribute("d", path.getAttribute("d"));
        kept.setAttribute("class", path.getAttribute("class"));
        kept.style.strokeWidth = path.style.strokeWidth;
      } else {
        this.flows.append(path);
      }
    });
    old.slice(drawn.filter(Boolean).length).forEach((path) => path.remove());
  }
}

/** What the marks of the picture mean. */
export function legend() {
  const entries = [
    ["idle", null],
    ["getting", 0.6],
    ["fetching", 0.6],
    ["apart", null],
    ["distrusted", null],
  ];
  return entries.map(([state, part]) => {
    const group = element("g", { class: `dot ${state}`, transform: "translate(9 9)" });
    draw(group, state, part, 7);
    const entry = document.createElement("li");
    entry.append(element("svg", { viewBox: "0 0 18 18", "aria-hidden": "true" }, group), STATES[state]);
    return entry;
  });
}

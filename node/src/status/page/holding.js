// Who holds what: images, releases, layers, and the table of devices.

import { attribute, bar, breaking, by, fill, list, make, show, text } from "./dom.js";
import { stateInWords, stateOf } from "./picture.js";
import * as words from "./words.js";

/** How the table of devices is sorted, and what is looked for in it. */
let sort = { column: "name", down: false };
let filter = "";

export function find(wanted) {
  filter = wanted;
}

/** Rows with a bar that says how many of all devices hold something. */
function showHeld(parent, items, devices) {
  list(
    parent,
    items,
    (item) => item.key,
    (item) => {
      const name = make("span", "name");
      attribute(name, "title", item.title);
      return make(
        "li",
        "",
        name,
        make("span", "size"),
        bar("Devices that hold it"),
        make("span", "count"),
        make("span", "mark"),
      );
    },
    (row, item) => {
      const [name, size, held, shown, mark] = row.children;
      breaking(name, item.name);
      text(size, item.size);
      fill(held, words.share(item.holders, devices), item.holders >= devices ? "" : "soft");
      attribute(held, "aria-valuetext", `${item.holders} of ${devices} devices`);
      text(shown, item.count ?? `${words.count(item.holders)} of ${words.count(devices)}`);
      text(mark, item.mark);
    },
  );
}

export function showImages(site) {
  const devices = site.devices.filter((device) => device.connected).length + 1;
  const shown = site.images.length;
  text(
    by("images-lead"),
    shown === 0
      ? "No image is known by name yet: the first one appears once a runtime, or layermesh pull, asked for it."
      : `${words.counted(shown, "image", "images")} known by name, and how many of the ${words.counted(devices, "connected device", "connected devices")} hold all of each` +
          (site.tags_total > shown ? ` (the site knows ${words.counted(site.tags_total, "tag", "tags")}).` : "."),
  );
  showHeld(
    by("images"),
    site.images.map((image) => ({
      key: image.image,
      name: words.imageName(image.image),
      title: `${image.image}\n${image.digest}`,
      size: `${words.bytes(image.bytes)}, ${words.counted(image.layers, "layer", "layers")}`,
      holders: image.holders,
      mark: image.here ? "here" : "",
    })),
    devices,
  );
}

export function showReleases(site) {
  const releases = site.node.releases;
  show(by("releases-card"), releases !== undefined && releases !== null);
  if (!releases) return;
  const followed = releases.channels.length > 0 ? `Follows ${releases.channels.join(", ")}. ` : "";
  const expires = releases.expires
    ? `${releases.expired ? "Expired" : "Expires"} ${releases.expires.replace("T", " ").replace("Z", " UTC")}.`
    : "";
  text(
    by("releases-lead"),
    releases.repository
      ? `${followed}Metadata ${words.count(releases.version)} of ${releases.repository}. ${expires}`
      : `${followed}No metadata was accepted yet.`,
  );
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
  showHeld(
    by("releases"),
    [...rows.values()].map((row) => ({
      key: row.key,
      name: row.key,
      title: row.key,
      size: words.bytes(row.total),
      holders: row.holders,
      count: `${words.count(row.holders)} of ${words.count(row.devices)}`,
      mark: row.own
        ? row.own.complete
          ? "here"
          : row.own.waits_for || words.percent(words.share(row.own.held, row.own.total))
        : "",
    })),
    most,
  );
}

const COLUMNS = [
  {
    id: "name",
    title: "Device",
    of: (device, names) => (device.connected ? "" : "\uffff") + names.get(device.peer_id),
    order: words.compareNames,
  },
  { id: "state", title: "State", of: (device) => stateInWords(device), kind: "wide" },
  {
    id: "getting",
    title: "Getting",
    of: (device) => (device.wants > 0 ? words.share(device.had_bytes, device.wanted_bytes) : -1),
    shown: (part) => (part < 0 ? "–" : words.percent(part)),
    kind: "number",
  },
  { id: "holds", title: "Holds", of: (device) => device.bytes, shown: words.bytes, kind: "number" },
  { id: "from", title: "From it", of: (device) => device.received_bytes, shown: words.bytes, kind: "number wide" },
  { id: "to", title: "To it", of: (device) => device.sent_bytes, shown: words.bytes, kind: "number wide" },
  { id: "platform", title: "Platform", of: (device) => device.platform ?? "", kind: "widest" },
  { id: "version", title: "Version", of: (device) => device.version ?? "", kind: "widest" },
];

export function makeHead(update) {
  by("devices-head").append(
    ...COLUMNS.map((column) => {
      const button = make("button", "", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        const same = sort.column === column.id;
        sort = { column: column.id, down: same ? !sort.down : (column.kind ?? "").includes("number") };
        update();
      });
      const cell = make("th", column.kind, button);
      cell.scope = "col";
      cell.dataset.column = column.id;
      return cell;
    }),
  );
}

export function showDevices(site, names) {
  const wanted = filter.trim().toLowerCase();
  const fits = (device) =>
    [names.get(device.peer_id), device.peer_id, device.platform ?? "", device.version ?? "", stateInWords(device)].some(
      (value) => value.toLowerCase().includes(wanted),
    );
  const column = COLUMNS.find(({ id }) => id === sort.column);
  const order =
    column.order ?? ((one, other) => (typeof one === "number" ? one - other : words.compareNames(one, other)));
  const rows = site.devices
    .filter(fits)
    .sort((one, other) => order(column.of(one, names), column.of(other, names)) * (sort.down ? -1 : 1));
  for (const cell of by("devices-head").children) {
    attribute(cell, "aria-sort", cell.dataset.column === column.id ? (sort.down ? "descending" : "ascending") : "none");
  }
  text(
    by("devices-lead"),
    site.devices_total === 0
      ? "No other device yet."
      : wanted
        ? `${words.count(rows.length)} of ${words.counted(site.devices.length, "other device", "other devices")}.`
        : `${words.counted(site.devices_total, "other device", "other devices")}, beside this one.`,
  );
  list(
    by("devices"),
    rows,
    (device) => device.peer_id,
    (device) => {
      const row = make(
        "tr",
        "",
        ...COLUMNS.map((one, index) => {
          const cell = make(index === 0 ? "th" : "td", one.kind);
          if (index === 0) {
            cell.scope = "row";
            cell.append(make("span", "swatch"), make("span", "name"), make("span", "id"));
          }
          return cell;
        }),
      );
      attribute(row, "title", device.peer_id);
      return row;
    },
    (row, device) => {
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
    },
  );
}

export function showLayers(site) {
  const devices = site.devices.filter((device) => device.connected).length + 1;
  text(
    by("layers-lead"),
    site.layers_total === 0
      ? "No device of the site holds a layer yet."
      : `The connected devices hold ${words.counted(site.layers_total, "layer", "layers")} (and manifests)` +
          (devices === 1
            ? "."
            : site.layers_held_once === 0
              ? ", each on at least two devices."
              : `; ${words.count(site.layers_held_once)} of them on one device alone.`),
  );
  if (!by("layers").parentElement.open) return;
  showHeld(
    by("layers"),
    site.layers.map((layer) => ({
      key: layer.digest,
      name: words.layerName(layer),
      title: layer.digest,
      size: words.bytes(layer.size),
      holders: layer.holders,
      mark: layer.here ? "here" : "",
    })),
    devices,
  );
}

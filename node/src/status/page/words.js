// Figures and names as people read them. Pure: no document, no state.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NO_BREAK = "\u00a0";

/** Three significant digits, whole below ten thousand bytes' unit step. */
function digits(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function bytes(count) {
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return (unit === 0 ? String(Math.round(count)) : digits(count)) + NO_BREAK + UNITS[unit];
}

export const rate = (perSecond) => `${bytes(perSecond)}/s`;

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const steps = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  for (const [size, unit, lower, lowerUnit] of steps) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / lower);
      return `${Math.floor(whole / size)}${NO_BREAK}${unit}` + (rest ? ` ${rest}${NO_BREAK}${lowerUnit}` : "");
    }
  }
  return `${whole}${NO_BREAK}s`;
}

export const share = (part, whole) => (whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0);

/** A share in percent; all and nothing are said only of all and nothing. */
export function percent(of) {
  const shown = of > 0 && of < 0.01 ? 1 : of < 1 && of > 0.99 ? 99 : Math.round(of * 100);
  return `${shown}${NO_BREAK}%`;
}

export const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

export const counted = (number, one, many) => `${count(number)}${NO_BREAK}${number === 1 ? one : many}`;

/** The end of a peer id: all of them begin alike. */
export const shortId = (peerId) => `…\u2060${peerId.slice(-6)}`;

/** The beginning of a digest, without its algorithm. */
export const shortDigest = (digest) => digest.slice(digest.indexOf(":") + 1).slice(0, 8);

/** An image's name without what goes without saying. */
export const imageName = (image) => image.replace(/^docker\.io\/(library\/)?/, "");

/** A layer, by the image that it belongs to if one is known. */
export const layerName = (blob) => (blob.image ? imageName(blob.image) : "layer") + ` ${shortDigest(blob.digest)}`;

/** The same where there is little room: without the registry and the path. */
export const layerShort = (blob) =>
  (blob.image ? blob.image.slice(blob.image.lastIndexOf("/") + 1) : "layer") + ` ${shortDigest(blob.digest)}`;

/** Each device's name by its peer id: its address, and where several have the same one, the end of its id too. */
export function deviceNames(site) {
  const uses = new Map();
  for (const device of site.devices) {
    uses.set(device.address, (uses.get(device.address) ?? 0) + 1);
  }
  const names = new Map([[site.node.peer_id, "this device"]]);
  for (const device of site.devices) {
    const id = shortId(device.peer_id);
    const alone = device.address && uses.get(device.address) === 1;
    names.set(device.peer_id, alone ? device.address : device.address ? `${device.address} ${id}` : id);
  }
  return names;
}

/** In the order of addresses' numbers, then of names. */
export function compareNames(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}

/**
 * Names short enough to stand in the picture, in the same order; the whole ones are in the table. Of addresses that differ
 * in their last number only, that number; of others, as many letters as have room.
 */
export function shortNames(names) {
  const parts = names.map((name) => /^(\d+\.\d+\.\d+)(\.\d+)$/.exec(name));
  if (parts.every((part) => part && part[1] === parts[0][1])) return parts.map((part) => part[2]);
  return names.map((name) => (name.length > 15 ? `${name.slice(0, 4)}…${name.slice(-8)}` : name));
}

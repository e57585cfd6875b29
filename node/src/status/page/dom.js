// What the page is made of.
//
// Invariant: what comes from the network becomes text (textContent) and nothing else; what did not change is not touched,
// so that whoever reads, selects or listens to the page is not disturbed.

export const by = (id) => document.getElementById(id);

export function make(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** A name that may be long: it breaks where its parts end. */
export function breaking(element, value) {
  if (element.textContent === value) return;
  const parts = value.split(/(?<=[/:@_-])/);
  element.replaceChildren(
    ...parts.flatMap((part, index) => (index === 0 ? [part] : [document.createElement("wbr"), part])),
  );
}

/** Words with commands in them, between backticks. */
export function prose(element, value) {
  if (element.dataset.said === value) return;
  element.dataset.said = value;
  element.replaceChildren(...value.split("`").map((part, index) => (index % 2 === 1 ? make("code", "", part) : part)));
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Brings the children of `parent` in line with `items`; one with the same key keeps its element. */
export function list(parent, items, key, build, update) {
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
export function bar(label) {
  const made = make("div", "bar");
  attribute(made, "role", "progressbar");
  attribute(made, "aria-label", label);
  attribute(made, "aria-valuemin", 0);
  attribute(made, "aria-valuemax", 100);
  made.append(make("span", "fill"));
  return made;
}

export function fill(element, part, kind = "") {
  attribute(element, "aria-valuenow", Math.round(part * 100));
  const inner = element.firstElementChild;
  const width = `${(part * 100).toFixed(1)}%`;
  if (inner.style.width !== width) inner.style.width = width;
  const name = `fill ${kind}`.trim();
  if (inner.className !== name) inner.className = name;
}

/** Also for SVG, which has no property for it. */
export const show = (element, shown) => element.toggleAttribute("hidden", !shown);

// The stacks of all sites as one icicle graph: outermost on top, as wide as there are objects.

import { h, setText } from "./dom.js";

const MOST = 40;
const LARGE = 0.1;

export function tree(sites) {
  const root = { children: new Map(), count: 0 };
  const total = sites.reduce((sum, site) => sum + site.count, 0);
  // No deeper than the large ones: a long narrow part would show nothing.
  const deepest = Math.max(1, ...sites.filter((site) => site.count >= LARGE * total).map((site) => site.stack.length));
  for (const site of sites) {
    let node = root;
    node.count += site.count;
    // In a very deep stack, the inner end shows where it waits.
    for (const [name, file, line] of site.stack.slice(-MOST).slice(0, deepest)) {
      const key = `${name}\n${file}\n${line}`;
      if (!node.children.has(key)) node.children.set(key, { name, file, line, count: 0, children: new Map() });
      node = node.children.get(key);
      node.count += site.count;
    }
  }
  return root;
}

export function icicle(sites, wanted) {
  const root = tree(sites);
  const chosen = h("p", { class: "chosen soft", role: "status" }, "Choose a part to see its place and how many objects wait below it.");
  let pressed = null;
  const draw = (node) => {
    if (node.children.size === 0) return null;
    const list = h("ul", {});
    for (const child of [...node.children.values()].sort((one, other) => other.count - one.count)) {
      const text = `${child.name}, ${child.file}:${child.line}`;
      const button = h("button", { type: "button", title: `${child.count} in ${text}`, "aria-pressed": "false" }, child.name || "(unnamed)");
      button.classList.toggle("found", wanted !== "" && text.toLowerCase().includes(wanted));
      button.addEventListener("click", () => {
        pressed?.setAttribute("aria-pressed", "false");
        pressed = button;
        button.setAttribute("aria-pressed", "true");
        setText(chosen, `${child.count} of ${root.count} in ${text}`);
      });
      const item = h("li", {}, button, draw(child));
      item.style.flexGrow = String(child.count);
      list.append(item);
    }
    // A stack that is shallower than its siblings leaves space empty.
    const rest = node.count - [...node.children.values()].reduce((sum, child) => sum + child.count, 0);
    if (rest > 0 && node !== root) {
      const empty = h("li", { "aria-hidden": "true" });
      empty.style.flexGrow = String(rest);
      list.append(empty);
    }
    return list;
  };
  const graph = draw(root);
  return graph === null ? null : h("div", {}, h("div", { class: "icicle" }, graph), chosen);
}

// The keyboard, the ages that tick, and what the small modules of the panels call.

const KEYS = [
  ["j", "next row"],
  ["k", "previous row"],
  ["enter", "open the row"],
  ["/", "search"],
  ["a", "approve the payment"],
  ["f", "mark the payment as fraud"],
  ["o", "overview"],
  ["n", "news"],
  ["p", "payments"],
  ["esc", "close"],
  ["?", "this list"],
];

function rows() {
  return [...document.querySelectorAll("a.tw-row, .tw-tape .tw-row")].filter((node) => node.offsetParent !== null);
}

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.querySelector(".tw-on"));
  const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
  document.querySelectorAll(".tw-on").forEach((node) => node.classList.remove("tw-on"));
  next.classList.add("tw-on");
  next.scrollIntoView({ block: "nearest" });
}

function enter() {
  const row = document.querySelector(".tw-on");
  if (!row) return;
  const target = row.matches("a") ? row : row.querySelector("a.tw-chip") || row.querySelector("a");
  if (target) target.click();
}

function help(show) {
  const found = document.querySelector(".tw-help");
  if (found) found.remove();
  if (!show || found) return;
  document.querySelector(".stApp").append(h("div", { class: "tw-help", role: "dialog", "aria-label": "Keyboard", onclick: () => help(false) },
    h("div", {}, h("h2", {}, "Keyboard"), ...KEYS.map(([key, words]) => h("p", {}, h("kbd", {}, key), words)))));
}

function visit(path) {
  const found = [...document.querySelectorAll('[data-testid="stTopNavLink"], [data-testid="stSidebarNavLink"]')];
  const target = found.find((node) => new URL(node.href).pathname.replace(/\/$/, "").endsWith(path));
  if (target) target.click();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (document.activeElement) document.activeElement.blur();
    typed = null;
    help(false);
    return;
  }
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (waits(event)) {
    event.preventDefault();
    return;
  }
  const acts = { j: () => move(1), k: () => move(-1), "/": search, "?": () => help(true), n: () => visit("/news"), p: () => visit("/payments"), o: () => visit(""), a: () => judge("legit"), f: () => judge("fraud") };
  if (event.key === "Enter" && document.querySelector(".tw-on") && !event.target.closest("a, button")) acts.Enter = enter;
  const act = acts[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function tick() {
  document.querySelectorAll(".tw-head").forEach(age);
  document.querySelectorAll("[data-age][data-at]").forEach((node) => put(node, span((serverNow() - Number(node.dataset.at)) / 1000)));
}

export default function () {
  if (window.tapewatch) return;
  window.tapewatch = (name, component) => panels[name](component.parentElement, component.data, component.setTriggerValue);
  document.addEventListener("keydown", press);
  setInterval(tick, 500);
  window.dispatchEvent(new Event("tapewatch"));
}

// Small pieces that every panel uses: elements, lists that keep their nodes, words for numbers and times.
// Text from headlines enters the page as text only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const THIN = "\u202F"; // narrow, and never broken at

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function put(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

function mark(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// Make the children of `parent` match `rows`: nodes are kept by key, so that nothing flickers and focus stays.
function list(parent, rows, keyOf, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = parent.firstElementChild;
  for (const row of rows) {
    const key = String(keyOf(row));
    let node = old.get(key);
    if (!node) {
      node = make(row);
      node.dataset.key = key;
    }
    old.delete(key);
    update(node, row);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of old.values()) node.remove();
}

function once(parent, build) {
  let node = parent.querySelector(":scope > .tw");
  if (!node) {
    node = build();
    node.classList.add("tw");
    parent.append(node);
  }
  return node;
}

function number(value, decimals) {
  const [whole, part] = Math.abs(value).toFixed(decimals || 0).split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, THIN) : whole;
  return (value < 0 ? "\u2212" : "") + grouped + (part ? "." + part : "");
}

function usual(value) {
  return value > 0 && value < 0.05 ? "<0.1" : number(value, 1);
}

const pad = (value) => String(value).padStart(2, "0");

function clock(ms) {
  const time = new Date(ms);
  const text = `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
  if (time.toDateString() === new Date().toDateString()) return text;
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())} ${text}`;
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

// The server's clock, so that ages are right where the viewer's clock is not.
let skew = 0;
function serverNow() {
  return Date.now() + skew;
}

const MARKS = { negative: "\u25BC", neutral: "\u25CF", positive: "\u25B2" };
const SIGNS = { negative: "negative", neutral: "neutral", positive: "positive" };

function sentiment(label) {
  return h("span", { class: `tw-mark tw-${label}`, title: SIGNS[label], role: "img", "aria-label": SIGNS[label] }, MARKS[label]);
}

// A sparkline of bars: each value's height from zero, a second value inside it in the colour of negative.
function spark(node, values, width, height) {
  const top = Math.max(1, ...values.map((value) => (Array.isArray(value) ? value[0] : value)));
  const step = width / values.length;
  const bar = (index, value, part, colour) => {
    if (!part) return "";
    const tall = Math.max(1, (part / top) * (height - 1));
    return `<rect x="${(index * step).toFixed(2)}" y="${(height - tall).toFixed(2)}" width="${Math.max(0.6, step - 0.8).toFixed(2)}" height="${tall.toFixed(2)}" fill="var(--tw-${colour})"/>`;
  };
  const text = values
    .map((value, index) => {
      const [all, negative] = Array.isArray(value) ? value : [value, 0];
      return bar(index, value, all, "spark") + bar(index, value, negative, "negative");
    })
    .join("");
  if (node.dataset.drawn === text) return;
  node.dataset.drawn = text;
  mark(node, "viewBox", `0 0 ${width} ${height}`);
  mark(node, "width", width);
  mark(node, "height", height);
  node.innerHTML = `<line x1="0" x2="${width}" y1="${height - 0.5}" y2="${height - 0.5}" stroke="var(--tw-line)"/>${text}`;
}

function sparkline(label) {
  const node = document.createElementNS(SVG, "svg");
  node.setAttribute("class", "tw-spark");
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  return node;
}

// A link that stays in the page on a plain click, and is a URL for everything else.
function link(attributes, ...children) {
  return h("a", { ...attributes, target: "_self" }, ...children);
}

function plain(event) {
  return event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
}

function follow(node, act) {
  node.addEventListener("click", (event) => {
    if (!plain(event) || window.getSelection().toString()) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
}

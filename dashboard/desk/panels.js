// The panels: each a function of (parent, data, send) that builds its nodes once and then only changes what changed.

const panels = {};

panels.head = (parent, data) => {
  skew = data.now * 1000 - Date.now();
  const root = once(parent, () =>
    h("div", { class: "tw-head" },
      h("div", { class: "tw-age", role: "status" }, h("i"), h("b"), h("span")),
      h("div", { class: "tw-banner", role: "alert", hidden: true }, h("b"), h("span"))));
  root.dataset.asOf = data.as_of;
  root.dataset.state = data.state;
  root.dataset.replay = data.replay || "";
  mark(root.querySelector(".tw-age"), "title", data.title);
  const banner = root.querySelector(".tw-banner");
  banner.hidden = !data.banner;
  if (data.banner) {
    mark(banner, "data-level", data.banner.level);
    const since = data.banner.since ? " since " + clock(data.banner.since * 1000) : "";
    const kept = data.banner.kept ? ` The last values, of ${clock(data.banner.kept * 1000)}, are kept.` : "";
    put(banner.querySelector("b"), data.banner.what + since + ".");
    put(banner.querySelector("span"), data.banner.todo + kept);
  }
  age(root);
};

function age(root) {
  const seconds = Math.max(0, serverNow() / 1000 - Number(root.dataset.asOf));
  const known = Number(root.dataset.asOf) > 0;
  const level = !known || seconds >= 30 ? "red" : seconds >= 5 || root.dataset.state === "behind" ? "amber" : "calm";
  mark(root, "data-level", level);
  const words = { live: "data", behind: "catching up, data", away: "store away, data", idle: "no worker, data", empty: "data" };
  put(root.querySelector(".tw-age b"), known ? `${words[root.dataset.state] || "data"} ${span(seconds)} old` : "no data yet");
  put(root.querySelector(".tw-age span"), root.dataset.replay);
}

panels.figures = (parent, data) => {
  const root = once(parent, () => h("div", { class: "tw-figures" }));
  root.style.setProperty("--tw-count", data.figures.length);
  list(root, data.figures, (row) => row.title,
    (row) => h("div", { class: "tw-figure" },
      h("div", { class: "tw-caption" }, row.title),
      h("div", { class: "tw-value" }, h("b"), h("span", { class: "tw-unit" }, row.unit || ""), sparkline(row.title)),
      h("div", { class: "tw-note" })),
    (node, row) => {
      put(node.querySelector("b"), row.value === null ? "\u2013" : number(row.value, row.decimals));
      mark(node, "data-tone", row.tone);
      put(node.querySelector(".tw-note"), row.note);
      const svg = node.querySelector("svg");
      svg.style.display = row.series && row.series.length ? "" : "none";
      if (row.series && row.series.length) spark(svg, row.series, 96, 24);
    });
};

const STATE_WORDS = { firing: "firing", pending: "pending", acknowledged: "acknowledged", silenced: "silenced", resolved: "resolved" };

panels.alerts = (parent, data, send) => {
  const root = once(parent, () =>
    h("section", { class: "tw-panel" },
      h("h2", {}, h("span"), h("small")),
      h("div", { class: "tw-alerts" }),
      h("p", { class: "tw-empty" })));
  root.querySelector("h2").hidden = !data.title;
  put(root.querySelector("h2 span"), data.title || "");
  put(root.querySelector("h2 small"), data.note || "");
  put(root.querySelector(".tw-empty"), data.empty || "");
  list(root.querySelector(".tw-alerts"), data.rows, (row) => row.id,
    (row) => {
      const node = h("article", { class: "tw-alert" },
        link({ class: "tw-row", href: `?alert=${encodeURIComponent(row.id)}`, "data-open": row.id },
          h("span", { class: "tw-state" }), h("b", { class: "tw-name" }), h("span", { class: "tw-measure" }),
          h("span", { class: "tw-when", "data-age": true }), h("span", { class: "tw-lead" }), h("span", { class: "tw-outlets" })));
      follow(node.querySelector(".tw-row"), () => send("open", node.dataset.opened ? "" : row.id));
      return node;
    },
    (node, row) => {
      const state = node.querySelector(".tw-state");
      put(state, (row.state === "firing" ? "\u25B2 " : row.state === "resolved" ? "\u2713 " : "\u25CB ") + (row.state === "firing" ? row.severity : STATE_WORDS[row.state]));
      mark(node, "data-state", row.state);
      mark(node, "data-severity", row.severity);
      put(node.querySelector(".tw-name"), row.name);
      put(node.querySelector(".tw-measure"), row.measure);
      const when = node.querySelector(".tw-when");
      mark(when, "data-at", row.at);
      mark(when, "title", `${row.state} since ${clock(row.at)}`);
      put(when, span((serverNow() - row.at) / 1000));
      put(node.querySelector(".tw-lead"), row.lead);
      put(node.querySelector(".tw-outlets"), row.outlets.length ? `${row.outlets.length} ${row.sources[0]}${row.outlets.length > 1 ? "s" : ""}` : "");
      const open = data.open === row.id;
      mark(node, "data-opened", open ? "yes" : null);
      mark(node.querySelector(".tw-row"), "aria-expanded", open ? "true" : "false");
      details(node, open ? row : null, send);
    });
};

function details(node, row, send) {
  let box = node.querySelector(".tw-details");
  if (!row || !row.detail) {
    if (box) box.remove();
    return;
  }
  const drawn = JSON.stringify(row);
  if (box && box.dataset.drawn === drawn) return;
  const detail = row.detail;
  const news = row.kind === "sentiment";
  const [one, things] = row.sources;
  const go = link({ class: "tw-link", href: news ? `./news?entity=${encodeURIComponent(row.entity)}` : "./payments" }, news ? `Trend and headlines of ${row.name}` : `Payments of ${row.name}`);
  follow(go, () => send("go", row.entity));
  const made = h("div", { class: "tw-details" },
    h("p", { class: "tw-caption" }, `${detail.headlines.length} of ${row.count} ${things}, ${row.outlets.length} ${one}${row.outlets.length === 1 ? "" : "s"}: ${row.outlets.join(", ")}`),
    h("div", { class: "tw-evidence" }, ...detail.headlines.map((item) =>
      h("div", { class: "tw-line" }, h("time", {}, clock(item.at)), news ? sentiment(item.label) : h("span", { class: "tw-mark" }, item.label === "critical" ? "\u25A0" : "\u25CB"), h("span", { class: "tw-title" }, item.title), h("span", { class: "tw-source" }, item.source)))),
    h("p", { class: "tw-caption" }, detail.history.map((step) => `${step.state} ${clock(step.at)}`).join(", ") + `. Alert ${row.id}, version ${row.version}. `, go));
  made.dataset.drawn = drawn;
  if (box) box.replaceWith(made);
  else node.append(made);
}

panels.movers = (parent, data, send) => {
  const root = once(parent, () =>
    h("section", { class: "tw-panel" },
      h("h2", {}, h("span"), h("small")),
      h("div", { class: "tw-table tw-movers", role: "table" },
        h("div", { class: "tw-th", role: "row" }, ...data.columns.map((name, index) => h("span", { role: "columnheader", class: `tw-c${index}` }, name))),
        h("div", { class: "tw-body", role: "rowgroup" })),
      h("p", { class: "tw-empty" })));
  if (data.narrow) root.classList.add("tw-narrow");
  put(root.querySelector("h2 span"), data.title);
  put(root.querySelector("h2 small"), data.note);
  put(root.querySelector(".tw-empty"), data.empty || "");
  root.querySelector(".tw-th").style.display = data.rows.length ? "" : "none";
  list(root.querySelector(".tw-body"), data.rows, (row) => row.entity,
    (row) => {
      const node = link({ class: "tw-row", role: "row", href: `./news?entity=${encodeURIComponent(row.entity)}`, "data-entity": row.entity },
        h("span", { class: "tw-c0" }, h("b"), h("small")), h("span", { class: "tw-c1" }, sparkline("stories in 5-minute buckets, 3 h")),
        h("span", { class: "tw-c2" }, h("b"), h("small")), h("span", { class: "tw-c3" }, h("b"), h("small")),
        h("span", { class: "tw-c4" }));
      follow(node, () => send("go", row.entity));
      return node;
    },
    (node, row) => {
      const [name, , stories, negative, last] = node.children;
      put(name.children[0], row.symbol);
      put(name.children[1], row.name);
      mark(name, "title", row.name);
      spark(node.querySelector("svg"), row.series, data.narrow ? 72 : 144, 20);
      put(stories.children[0], number(row.stories));
      put(stories.children[1], "usual " + usual(row.usual));
      put(negative.children[0], number(row.negative));
      put(negative.children[1], "usual " + usual(row.usual_negative));
      mark(stories, "data-high", row.high ? "yes" : null);
      mark(negative, "data-high", row.high_negative ? "yes" : null);
      put(last, row.at ? clock(row.at) : "");
      mark(node, "aria-current", row.entity === data.selected ? "true" : null);
    });
};

panels.tape = (parent, data, send) => {
  const root = once(parent, () => {
    const made = h("section", { class: "tw-panel" },
      h("h2", {}, h("span"), h("small")),
      h("button", { class: "tw-new", type: "button", hidden: true }),
      h("div", { class: "tw-tape" }),
      h("p", { class: "tw-empty" }));
    made.querySelector(".tw-new").addEventListener("click", () => {
      scroller(made).scrollTo({ top: 0 });
      made.flush();
    });
    return made;
  });
  root.flush = () => { root.held = null; drawTape(root, root.latest, root.send); };
  root.latest = data;
  root.send = send;
  if (!root.listening) {
    root.listening = true;
    scroller(root).addEventListener("scroll", () => { if (root.held && scroller(root).scrollTop < 8) root.flush(); }, { passive: true });
  }
  drawTape(root, data, send);
};

function scroller(node) {
  return node.closest('[data-testid="stMain"]') || document.scrollingElement;
}

// While the reader is scrolled down, what is new waits above and is counted: rows never move under the eye.
function drawTape(root, data, send) {
  put(root.querySelector("h2 span"), data.title);
  put(root.querySelector("h2 small"), data.note);
  put(root.querySelector(".tw-empty"), data.empty || "");
  const body = root.querySelector(".tw-tape");
  const first = body.firstElementChild && body.firstElementChild.dataset.key;
  const same = root.query === data.query;
  root.query = data.query;
  let rows = data.rows;
  const place = rows.findIndex((row) => row.key === first);
  const button = root.querySelector(".tw-new");
  if (same && place > 0 && scroller(root).scrollTop >= 8 && body.getBoundingClientRect().top < 0) {
    rows = rows.slice(place);
    root.held = place;
    put(button, `${place} new`);
  } else root.held = null;
  button.hidden = !root.held;
  mark(body, "data-compact", data.compact ? "yes" : null);
  list(body, rows, (row) => row.key,
    (row) => h("div", { class: "tw-row", tabindex: "-1" },
      h("time", {}), h("span", { class: "tw-feeling" }), h("span", { class: "tw-title" }, row.url ? h("a", { href: row.url, target: "_blank", rel: "noopener noreferrer" }, row.title) : row.title),
      h("span", { class: "tw-chips" }), h("span", { class: "tw-source" })),
    (node, row) => {
      if (node.dataset.drawn === row.version) return;
      node.dataset.drawn = row.version;
      const [time, feeling, title, chips, source] = node.children;
      put(time, clock(row.at));
      mark(title, "title", row.title);
      feeling.replaceChildren(sentiment(row.label), data.compact ? "" : h("span", { class: "tw-p" }, number(row.p, 2)));
      chips.replaceChildren(...row.entities.map((entity) => {
        const chip = link({ class: "tw-chip", href: `./news?entity=${encodeURIComponent(entity.entity)}`, title: entity.name }, entity.symbol);
        follow(chip, () => send("go", entity.entity));
        return chip;
      }));
      put(source, row.copies > 1 ? `${row.source} +${row.copies - 1}` : row.source);
      mark(source, "title", row.copies > 1 ? `${row.copies} copies: ${row.outlets.join(", ")}` : null);
    });
}

panels.foot = (parent, data, send) => {
  const root = once(parent, () => {
    const select = h("select", { "aria-label": "colours of negative and positive", onchange: (event) => send("colours", event.target.value) },
      ...data.schemes.map(([name, words]) => h("option", { value: name, title: words }, `colours: ${name}`)));
    return h("footer", { class: "tw-foot" }, h("div", { class: "tw-items" }), h("div", { class: "tw-tools" }, select, h("button", { type: "button", onclick: () => help(true), title: "Keyboard" }, "? keys")));
  });
  list(root.querySelector(".tw-items"), data.items, (item) => item.name,
    (item) => h("span", { class: "tw-item" }, h("span", { class: "tw-caption" }, item.name + " "), h("b")),
    (node, item) => {
      put(node.querySelector("b"), item.text);
      mark(node, "data-tone", item.tone);
      mark(node, "title", item.title);
    });
  const select = root.querySelector("select");
  if (select !== document.activeElement) select.value = data.scheme;
};

// The panels of the review desk: the queue with its reasons and verdicts, and the account that a payment is of.

const VERDICTS = { fraud: "fraud", legit: "approved" };

panels.cases = (parent, data, send) => {
  const root = once(parent, () => {
    const made = h("section", { class: "tw-panel" },
      h("h2", {}, h("span"), h("small")),
      h("div", { class: "tw-saids" }),
      h("button", { class: "tw-new", type: "button", hidden: true }),
      h("div", { class: "tw-cases" },
        h("div", { class: "tw-th" }, ...["decision", "score", "amount", "account, terminal", "what speaks for fraud", "age"].map((name, index) =>
          h("span", { class: [1, 2, 5].includes(index) ? "tw-r" : "" }, name))),
        h("div", { class: "tw-body" })),
      h("p", { class: "tw-empty" }));
    made.querySelector(".tw-new").addEventListener("click", () => { made.shown = null; drawCases(made, made.latest); });
    return made;
  });
  root.latest = data;
  root.send = send;
  drawCases(root, data);
};

// While a case is open or the reader is scrolled down, new cases wait above and are counted: rows never move under the eye.
function drawCases(root, data) {
  put(root.querySelector("h2 span"), data.title);
  put(root.querySelector("h2 small"), data.note);
  put(root.querySelector(".tw-empty"), data.empty || "");
  drawSaid(root.querySelector(".tw-saids"), data.said, root);
  root.querySelector(".tw-th").style.display = data.rows.length ? "" : "none";
  const button = root.querySelector(".tw-new");
  const reading = (data.open || scroller(root).scrollTop >= 8) && root.query === data.query && root.shown;
  const rows = reading ? data.rows.filter((row) => root.shown.has(row.id) || row.id === data.open) : data.rows;
  const held = data.rows.length - rows.length;
  root.query = data.query;
  if (!reading) root.shown = new Set(rows.map((row) => row.id));
  put(button, `${held} new`);
  button.hidden = !held;
  list(root.querySelector(".tw-body"), rows, (row) => row.id,
    (row) => {
      const node = h("article", { class: "tw-case", "data-id": row.id },
        link({ class: "tw-row", href: `?case=${encodeURIComponent(row.id)}` },
          h("span", { class: "tw-decision" }), h("span", { class: "tw-score" }), h("span", { class: "tw-amount" }),
          h("span", { class: "tw-who" }, row.account, h("small")), h("span", { class: "tw-why" }), h("span", { class: "tw-when", "data-age": true })));
      follow(node.querySelector(".tw-row"), () => root.send("case", node.dataset.opened ? "" : row.id));
      node.judge = (label) => root.send("verdict", { id: row.id, label, account: row.account, terminal: row.terminal });
      return node;
    },
    (node, row) => {
      const [decision, score, amount, who, why, when] = node.querySelector(".tw-row").children;
      mark(node, "data-decision", row.decision);
      mark(node, "data-said", row.said && !row.said.error ? row.said.label : null);
      put(decision, (row.decision === "block" ? "\u25A0 " : "\u25CB ") + row.decision);
      put(score, number(row.score, 2));
      put(amount, row.amount);
      put(who.children[0], [row.terminal, row.place].filter(Boolean).join(", "));
      mark(who, "title", `${row.account} at ${row.terminal}`);
      put(why, row.said && !row.said.error ? `${VERDICTS[row.said.label]} by you, ${clock(row.said.at)}` : row.why);
      mark(why, "title", row.why);
      mark(when, "data-at", row.at);
      mark(when, "title", clock(row.at));
      put(when, span((serverNow() - row.at) / 1000));
      const open = data.open === row.id;
      mark(node, "data-opened", open ? "yes" : null);
      mark(node.querySelector(".tw-row"), "aria-expanded", open ? "true" : "false");
      drawCase(node, open ? row : null, root);
    });
}

function drawCase(node, row, root) {
  const box = node.querySelector(".tw-details");
  if (!row || !row.detail) {
    if (box) box.remove();
    return;
  }
  const drawn = JSON.stringify([row.id, row.detail, row.said]);
  if (box && box.dataset.drawn === drawn) return;
  const { reasons, rules, limits, model, judged_at: judgedAt } = row.detail;
  const most = Math.max(0.01, ...reasons.map((reason) => Math.abs(reason.contribution)));
  const button = (label, words, key) =>
    h("button", { class: "tw-act", type: "button", title: `${words} ${row.id}`, onclick: () => node.judge(label) }, words, h("kbd", {}, key));
  const account = link({ class: "tw-link", href: `?account=${encodeURIComponent(row.account)}` }, `Account ${row.account}`);
  follow(account, () => root.send("go", `account:${row.account}`));
  const made = h("div", { class: "tw-details" },
    rules.length ? h("p", {}, `Rules: ${rules.join(", ")}`) : null,
    reasons.length ? h("div", { class: "tw-reasons" }, ...reasons.flatMap((reason) => reasonCells(reason, most))) : h("p", { class: "tw-empty" }, "No reasons were recorded: a rule decided."),
    h("div", { class: "tw-acts" }, button("legit", "Approve", "a"), button("fraud", "Mark as fraud", "f"), account),
    h("p", { class: "tw-caption" }, `Score ${number(row.score, 3)}, ${limits}. Bars: what each adds to the log-odds. ${row.id}, judged ${clock(judgedAt)} by ${model}.`));
  made.dataset.drawn = drawn;
  if (box) box.replaceWith(made);
  else node.append(made);
}

function reasonCells(reason, most) {
  const width = (50 * Math.abs(reason.contribution)) / most;
  return [
    h("span", { title: reason.name }, reason.name),
    h("span", { class: "tw-r" }, reason.value),
    h("span", { class: "tw-bar", "data-sign": reason.contribution < 0 ? "-" : "+" }, h("i", { style: `width:${width.toFixed(1)}%` })),
    h("span", { class: "tw-r" }, (reason.contribution < 0 ? "\u2212" : "+") + number(Math.abs(reason.contribution), 2)),
  ];
}

// The last verdicts of this analyst, each of which can be changed.
function drawSaid(box, said, root) {
  list(box, said || [], (row) => `${row.id}:${row.label}:${row.at}`,
    (row) => {
      const other = row.label === "fraud" ? "legit" : "fraud";
      const words = row.error ? `${row.id} was not sent: ${row.error}. ` : `: ${VERDICTS[row.label]}, sent ${clock(row.at)}. `;
      return h("div", { class: "tw-said", "data-error": row.error || null },
        row.error ? null : h("b", {}, row.id), words,
        h("button", { type: "button", onclick: () => root.send("verdict", { id: row.id, label: row.error ? row.label : other }) },
          row.error ? "try again" : `change to ${VERDICTS[other]}`));
    },
    () => {});
}

panels.account = (parent, data, send) => {
  const root = once(parent, () =>
    h("section", { class: "tw-panel" },
      h("h2", {}, h("span"), h("small")),
      h("div", { class: "tw-windows" }),
      h("div", { class: "tw-chart" }),
      h("div", { class: "tw-pays" }),
      h("p", { class: "tw-empty" })));
  const found = data.account;
  put(root.querySelector("h2 span"), data.title);
  put(root.querySelector("h2 small"), found ? `${number(found.total)} payments known, amounts in USD` : "");
  put(root.querySelector(".tw-empty"), data.empty || "");
  for (const name of [".tw-windows", ".tw-chart", ".tw-pays"]) root.querySelector(name).style.display = found ? "" : "none";
  if (!found) return;
  const cells = ["", "payments", "sum", "largest", ...found.windows.flatMap((row) => [row.span, number(row.count), row.sum, row.largest])];
  list(root.querySelector(".tw-windows"), cells.map((text, index) => ({ text, index })), (cell) => cell.index,
    (cell) => h("span", { class: cell.index < 4 ? "tw-h" : "" }), (node, cell) => put(node, cell.text));
  drawPoints(root.querySelector(".tw-chart"), found.points);
  list(root.querySelector(".tw-pays"), found.rows, (row) => row.key,
    () => h("div", { class: "tw-pay" }, h("time"), h("span"), h("span"), h("span")),
    (node, row) => {
      const [at, amount, country, words] = node.children;
      mark(node, "data-mark", row.mark || null);
      put(at, clock(row.at));
      put(amount, row.amount);
      put(country, row.country);
      put(words, [MARKED[row.mark] || "", row.first ? "first time in this country" : ""].filter(Boolean).join(", "));
    });
};

const MARKED = { fraud: "\u25B2 fraud", block: "\u25A0 blocked", review: "\u25CB held for review", unusual: "far above habit" };
const TONES = { fraud: "critical", block: "critical", review: "warning", unusual: "warning" };

// Payments by time and amount (logarithmic): a circle is usual, a square needs a look.
function drawPoints(box, points) {
  const drawn = JSON.stringify(points);
  if (box.dataset.drawn === drawn || !points.length) return;
  box.dataset.drawn = drawn;
  const [width, height, left, foot] = [480, 148, 44, 18];
  const first = points[0][0];
  const last = Math.max(points[points.length - 1][0], first + 60000);
  const amounts = points.map((point) => Math.max(0.01, point[1]));
  const low = Math.floor(Math.log10(Math.min(...amounts)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...amounts))));
  const x = (at) => left + ((width - left - 8) * (at - first)) / (last - first);
  const y = (amount) => 8 + ((height - foot - 12) * (high - Math.log10(Math.max(0.01, amount)))) / (high - low);
  let text = "";
  for (let power = low; power <= high; power += 1) {
    text += `<line x1="${left}" x2="${width - 8}" y1="${y(10 ** power)}" y2="${y(10 ** power)}" stroke="var(--tw-line)"/>`;
    text += `<text x="${left - 6}" y="${y(10 ** power) + 4}" text-anchor="end">${number(10 ** power, power < 0 ? -power : 0)}</text>`;
  }
  text += `<text x="${left}" y="${height - 2}">${clock(first)}</text><text x="${width - 8}" y="${height - 2}" text-anchor="end">${clock(last)}</text>`;
  const rank = (point) => (point[2] ? 1 : 0);
  for (const [at, amount, mark_] of [...points].sort((one, other) => rank(one) - rank(other))) {
    const title = `<title>${clock(at)}: ${number(amount, 2)} USD${MARKED[mark_] ? ", " + MARKED[mark_] : ""}</title>`;
    text += mark_
      ? `<rect x="${(x(at) - 4).toFixed(1)}" y="${(y(amount) - 4).toFixed(1)}" width="8" height="8" fill="var(--tw-${TONES[mark_]})">${title}</rect>`
      : `<circle cx="${x(at).toFixed(1)}" cy="${y(amount).toFixed(1)}" r="2.5" fill="var(--tw-neutral)" fill-opacity="0.7">${title}</circle>`;
  }
  box.innerHTML = `<svg class="tw-timeline" viewBox="0 0 ${width} ${height}" role="img" aria-label="Payments by time and amount in USD">${text}</svg>`;
}

// What `a` and `f` do: the verdict on the case that is open, or else on the row that is chosen.
function judge(label) {
  const chosen = document.querySelector(".tw-on");
  const node = document.querySelector(".tw-case[data-opened]") || (chosen && chosen.closest(".tw-case"));
  if (node) node.judge(label);
}

// The search field of a page: typing goes out after a pause, what the URL says comes in, and never the other way round.

const PAUSE = 200; // ms after the last key
const SEARCH = ".tw-search input";
let typed = null; // what was typed after "/" before the field was there; null: nobody searches

panels.search = (parent, data, send) => {
  const root = once(parent, () => {
    const field = h("input", { type: "search", "aria-label": "Search", autocomplete: "off", spellcheck: "false" });
    field.addEventListener("input", () => {
      clearTimeout(root_.timer);
      root_.timer = setTimeout(() => {
        root_.sent = field.value;
        root_.send("search", field.value);
      }, PAUSE);
    });
    const root_ = h("div", { class: "tw-search", role: "search" }, field);
    return root_;
  });
  root.send = send;
  const field = root.querySelector("input");
  mark(field, "placeholder", data.placeholder);
  // While somebody types, the page's word is older than theirs; a word of its own that comes back changes nothing.
  const typing = document.activeElement === field && (root.sent === undefined || root.sent === data.value || field.value !== root.sent);
  if (!typing && field.value !== data.value) field.value = data.value;
  if (root.sent === data.value) root.sent = undefined;
  if (typed !== null) take(field);
};

// The field has come: it gets what was typed meanwhile.
function take(field) {
  const text = typed;
  typed = null;
  field.focus();
  if (!text) return;
  field.value += text;
  field.dispatchEvent(new Event("input"));
}

function search() {
  const field = document.querySelector(SEARCH);
  if (field) return field.focus();
  typed = "";
  if (!/\/(news|payments)\/?$/.test(location.pathname)) visit("/news");
}

// Whether this key belongs to a search whose field is not there yet.
function waits(event) {
  if (typed === null) return false;
  if (event.key === "Backspace") typed = typed.slice(0, -1);
  else if (event.key.length === 1) typed += event.key;
  else return false;
  return true;
}

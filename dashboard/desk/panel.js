// One panel: waits for the desk (sent once a page), then draws. NAME is filled in.
export default async function (component) {
  if (!window.tapewatch) await new Promise((done) => window.addEventListener("tapewatch", done, { once: true }));
  window.tapewatch("NAME", component);
}

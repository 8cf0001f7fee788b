// A box that scrolls must be reachable by keyboard.
function reachable() {
  const boxes = "pre, div.formula, .text_html, .pst-scrollable-table-container, dt.sig";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth + 1) box.setAttribute("tabindex", "0");
  }
}
// The theme's arrows in the contents say nothing to a screen reader; others not what they show.
function named() {
  for (const one of document.querySelectorAll("summary, .search-button-field")) {
    const page = one.parentElement.parentElement.querySelector("a");
    if (one.textContent.trim()) one.removeAttribute("aria-label");
    else if (page) one.setAttribute("aria-label", `Pages under ${page.textContent.trim()}`);
  }
  const logo = document.querySelector(".sidebar-primary-item:has(> .navbar-brand)");
  logo?.setAttribute("role", "navigation");
  logo?.setAttribute("aria-label", "Home");
}
// An excerpt of a page found is of its article alone, around a word that begins as one sought:
// Sphinx's begins with the menus, and shows "became" for "Grad-CAM".
function excerpted() {
  if (typeof Search === "undefined") return;
  const sought = new URLSearchParams(location.search).get("q") ?? "";
  Search.makeSearchSummary = (html, stems, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    page?.querySelectorAll(".headerlink, script, style, details").forEach((one) => one.remove());
    const found = (anchor && page?.querySelector(anchor)) || page;
    const part = found?.nodeName === "DT" ? found.nextElementSibling : found; // a term's meaning
    if (!part) return null;
    const text = part.textContent.replace(/\s+/g, " ").trim();
    const places = [sought, ...stems].flatMap((words) => {
      const inside = words.split(/[^\p{L}\p{N}]+/u).filter(Boolean).join("[^\\p{L}\\p{N}]+");
      const begins = `(?<![\\p{L}\\p{N}])${inside || "(?!)"}`;
      const patterns = [`${begins}(?![\\p{L}\\p{N}])`, begins]; // whole, or else its beginning
      return patterns.map((one) => text.search(new RegExp(one, "iu")));
    });
    const start = Math.max(0, (places.find((place) => place >= 0) ?? 0) - 100);
    const summary = document.createElement("p");
    summary.className = "context";
    summary.textContent = `${start ? "... " : ""}${text.slice(start, start + 240)} ...`;
    return summary;
  };
}
// What goes deeper than a lesson's core is folded until somebody wants it, or follows a link there.
function folded() {
  for (const mark of document.querySelectorAll("section > .deeper")) {
    const [fold, title] = ["details", "summary"].map((name) => document.createElement(name));
    fold.className = "deeper";
    title.textContent = mark.textContent;
    mark.before(fold);
    fold.append(title);
    while (fold.nextSibling) fold.append(fold.nextSibling);
    mark.remove();
    fold.addEventListener("toggle", reachable);
  }
  unfolded();
}
function unfolded() {
  const wanted = document.getElementById(decodeURI(location.hash.slice(1)));
  const fold = wanted?.closest("details.deeper") ?? wanted?.querySelector(":scope > details.deeper");
  if (fold) fold.open = true;
}
// Paper is white, whatever the screen is, and cannot be unfolded.
window.addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details.deeper")) fold.open = true;
  const { dataset } = document.documentElement, { theme } = dataset;
  dataset.theme = "light";
  window.addEventListener("afterprint", () => { dataset.theme = theme; }, { once: true });
});
document.addEventListener("DOMContentLoaded", excerpted); // before Sphinx's script searches
document.addEventListener("DOMContentLoaded", folded);
window.addEventListener("hashchange", unfolded);
window.addEventListener("load", () => { named(); reachable(); });
window.addEventListener("resize", reachable);

// A box that scrolls must be reachable by keyboard.
function reachable() {
  const boxes = "pre, div.formula, .text_html, .pst-scrollable-table-container, dt.sig";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth + 1) box.setAttribute("tabindex", "0");
  }
}
// The theme's arrows in the contents say nothing to a screen reader.
function named() {
  for (const arrow of document.querySelectorAll("summary")) {
    const page = arrow.parentElement.parentElement.querySelector("a");
    if (!arrow.textContent.trim() && page) {
      arrow.setAttribute("aria-label", `Pages under ${page.textContent.trim()}`);
    }
  }
}
window.addEventListener("load", () => { named(); reachable(); });
window.addEventListener("resize", reachable);

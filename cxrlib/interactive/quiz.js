// Gives each question a button, and answers it from its folded list. Stores and sends nothing.
(() => {
  // JupyterLab's keys (arrows move cells, Enter edits) leave alone only what says so itself.
  const ownKeys = (element) => element.setAttribute("data-lm-suppress-shortcuts", "true");

  function sectionLink(form) {
    const name = form.querySelector("[data-section]").textContent;
    const plain = (text) => text.replace(/[`*#¶]/g, "").replace(/\s+/g, " ").trim();
    const heading = [...document.querySelectorAll("h1, h2, h3, h4")]
      .find((one) => plain(one.textContent) === plain(name));
    const said = document.createElement("p");
    said.append("Read again: ", name);
    if (heading) {
      const link = document.createElement("a");
      link.href = `#${heading.closest("[id]")?.id ?? ""}`;
      link.textContent = name;
      ownKeys(link);
      link.addEventListener("click", (event) => {
        event.preventDefault(); // JupyterLab's page has addresses of its own
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
        heading.scrollIntoView();
      });
      said.lastChild.replaceWith(link);
    }
    return said;
  }

  // What was chosen, as entries of the folded list; null where nothing was.
  function choose(form, entries) {
    const inputs = [...form.querySelectorAll("input")];
    if (form.dataset.kind !== "number") {
      const chosen = entries.filter((_, place) => inputs[place].checked);
      return chosen.length ? chosen : null;
    }
    const number = inputs[0].valueAsNumber;
    if (Number.isNaN(number)) return null;
    const near = Number(form.dataset.tolerance) + 1e-9;
    const isNear = (entry) => Math.abs(entry.dataset.value - number) <= near;
    return [entries.find((entry) => "value" in entry.dataset && isNear(entry)) ?? entries.at(-1)];
  }

  function setUp(form) {
    const fold = form.querySelector("details");
    const entries = [...fold.querySelectorAll("li")];
    const said = document.createElement("div");
    said.setAttribute("role", "status");
    const button = document.createElement("button");
    button.textContent = "Check";
    fold.before(button, said);
    fold.hidden = true;
    form.querySelectorAll("input, button, summary").forEach(ownKeys);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const chosen = choose(form, entries);
      if (!chosen) {
        const wanted = form.dataset.kind === "number" ? "Write a number" : "Choose an answer";
        said.textContent = `${wanted} first.`;
        return;
      }
      const right = entries.filter((entry) => entry.dataset.right);
      const wrong = chosen.filter((entry) => !entry.dataset.right);
      const open = right.length - (chosen.length - wrong.length);
      const isRight = !wrong.length && (!open || form.dataset.kind !== "multiple");
      const shown = isRight ? chosen : wrong;
      const lines = shown.map((entry) => {
        const line = document.createElement("p");
        line.append(...entry.querySelector("span").cloneNode(true).childNodes);
        return line;
      });
      const verdict = document.createElement("strong");
      verdict.textContent = isRight ? "Right. " : wrong.length ? "Not yet. "
        : `Right so far, and ${open} more ${open > 1 ? "belong" : "belongs"} here. `;
      if (!lines.length) lines.push(document.createElement("p"));
      lines[0].prepend(verdict);
      said.replaceChildren(...lines, ...(isRight ? [] : [sectionLink(form)]));
      fold.hidden = false;
    });
  }

  for (const quiz of document.querySelectorAll(".cxr-quiz:not([data-ready])")) {
    quiz.dataset.ready = "yes";
    quiz.querySelectorAll("form").forEach(setUp);
  }
})();

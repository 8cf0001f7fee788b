// A guess comes before its answer. Without this script a page shows both, as the lesson ran.
(() => {
function make(name, properties, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

const said = (one) => (typeof one === "number" ? +one.toFixed(3) : [].concat(one).join(", "));

function apart({ choices, items }, guess, found) {
  const same = items.filter((_, place) => guess[place] === found[place]).length;
  if (items.length) return `${same} of ${found.length} agree.`;
  if (!choices.length) return `They lie ${said(Math.abs(found - guess))} apart.`;
  return !choices.includes(found) ? "" : guess === found ? "They agree." : "They differ.";
}

function field({ choices, low, high, whole }, name) {
  const number = { type: "number", step: whole ? 1 : "any", min: low ?? "", max: high ?? "" };
  const entry = choices.length
    ? make("select", {}, new Option("choose ...", ""), ...choices.map((one) => new Option(one)))
    : make("input", number);
  entry.required = true;
  return make("label", {}, `${name} `, entry);
}

// Put what gives the answer away, up to the next heading, behind a form; return what opens it.
function gate(line, found) {
  const kind = JSON.parse(line.dataset.guess);
  const { value } = JSON.parse(found.dataset.found);
  const [asked, answered] = [line, found].map((one) => one.closest("div.cell"));
  const box = make("div", { className: "answer" });
  asked.id ||= `guess-${document.querySelectorAll("div.answer").length}`;
  const isNear = asked.parentElement === answered.parentElement;
  (isNear ? asked.nextSibling : answered).before(box);
  for (let next; (next = box.nextSibling) && next.nodeName !== "SECTION"; ) box.append(next);

  const row = [...document.querySelectorAll("tbody th")].findLast((th) => th.textContent === kind.name);
  const cells = row ? row.parentElement.querySelectorAll("td") : []; // at the end: guess, found
  const kept = cells[1]?.textContent;
  const link = make("a", { href: `#${asked.id}` }, "your guess");
  const waiting = make("p", {}, "What comes here waits for ", link, ".");
  box.before(waiting);
  let isDone = box.contains(document.getElementById(location.hash.slice(1)));
  function show(all) {
    if (all || isDone) box.removeAttribute("hidden");
    else box.setAttribute("hidden", "until-found"); // the browser's own search opens it
    if (cells[1]) cells[1].textContent = all || isDone ? kept : "after your guess";
    waiting.hidden = isNear || all || isDone;
    reachable();
  }
  box.addEventListener("beforematch", () => show((isDone = true)));

  const names = kind.items.length ? kind.items : [`Your guess, ${kind.hint}`];
  const fields = names.map((name) => field(kind, name));
  const unknown = make("button", { formNoValidate: true }, "I don't know");
  const told = make("output", {});
  const buttons = make("p", {}, make("button", {}, "Reveal"), " ", unknown);
  const question = make("p", {}, make("strong", {}, kind.question));
  const form = make("form", { className: "guess" }, question, ...fields, buttons, told);
  form.setAttribute("role", "group"); // so that a screen reader names the question
  form.setAttribute("aria-label", kind.question);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = fields.map((one) => one.control.value);
    const guess = kind.items.length ? typed : kind.choices.length ? typed[0] : Number(typed[0]);
    const isOpen = event.submitter === unknown;
    const mine = isOpen ? "You left it open." : `Your guess: ${said(guess)}.`;
    told.textContent = `${mine} Found: ${said(value)}. ${isOpen ? "" : apart(kind, guess, value)}`;
    if (cells[0]) cells[0].textContent = isOpen ? "don't know" : said(guess);
    show((isDone = true));
  });
  line.replaceWith(form);
  return show;
}

document.addEventListener("DOMContentLoaded", () => {
  const answers = [...document.querySelectorAll("[data-found]")];
  const gates = [];
  for (const line of document.querySelectorAll("[data-guess]")) {
    const { name } = JSON.parse(line.dataset.guess);
    const found = answers.map((one) => JSON.parse(one.dataset.found));
    const number = found.findIndex((one) => one.name === name && one.value !== null);
    if (number >= 0) gates.push(gate(line, answers[number]));
  }
  if (!gates.length) return;
  const all = make("input", { type: "checkbox", checked: sessionStorage.answers === "shown" });
  const show = () => gates.forEach((one) => one(all.checked));
  all.addEventListener("change", () => {
    sessionStorage.answers = all.checked ? "shown" : "";
    show();
  });
  const label = make("label", {}, all, " Show every result at once");
  const told = "This page asks you to guess before a result shows. ";
  window.addEventListener("beforeprint", () => gates.forEach((one) => one(true)));
  window.addEventListener("afterprint", show);
  document.querySelector("article h1").after(make("p", { className: "guess-all" }, told, label));
  show();
});
})();

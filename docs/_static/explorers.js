// The explorers of the page Play. Each stands on a still and on numbers that
// docs/explorers/make.py computed; without this script the still stays, and print shows it.
"use strict";
(() => {
const SHAPES = new Set(["svg", "g", "line", "polyline", "rect", "circle", "text"]);
const BLUE = "#0072B2", GREEN = "#009E73", VERMILLION = "#D55E00";

function make(name, attributes = {}, ...inside) {
  const node = SHAPES.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

// A share that is not all or nothing is not printed as if it were
function percent(share, digits = 1) {
  const text = (100 * share).toFixed(digits), isEnd = share > 0 && share < 1 && Number(text) % 100 === 0;
  return isEnd && digits < 4 ? percent(share, digits + 1) : `${text} %`;
}
const number = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
const sum = (values) => values.reduce((total, value) => total + value, 0);

// -- controls: each gives a function that tells its present value ----------------------------
let controls = 0;

// What a browser calls a range has the keys of one: arrows, Home and End, page up and down.
function slider(form, label, values, first, say) {
  const id = `explore-${controls++}`, shown = make("span", { class: "value", "aria-hidden": true });
  const ends = { min: 0, max: values.length - 1, step: 1, value: values.indexOf(first) };
  const input = make("input", { type: "range", id, ...ends, autocomplete: "off" });
  const tell = () => {
    shown.textContent = say(values[input.value]);
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", tell);
  tell();
  form.append(make("div", { class: "control" }, make("label", { for: id }, label), shown, input));
  return () => values[input.value];
}

function entry(form, label, first) {
  const id = `explore-${controls++}`;
  const input = make("input", { id, value: first, inputmode: "decimal", size: 8, autocomplete: "off" });
  form.append(make("div", { class: "entry" }, make("label", { for: id }, label), " ", input));
  return () => input.value.trim();
}

function choice(form, legend, options) {
  const name = `explore-${controls++}`, [first] = Object.keys(options);
  const field = make("fieldset", {}, make("legend", {}, legend));
  for (const [value, text] of Object.entries(options)) {
    const input = make("input", { type: "radio", name, value, autocomplete: "off" });
    input.checked = value === first;
    field.append(make("label", {}, input, ` ${text}`));
  }
  form.append(field);
  return () => form.elements[name].value;
}

// -- charts: axes with names, and what is drawn between them ---------------------------------
const SHARE = { from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], say: String };
const WIDTH = 400, LEFT = 62, RIGHT = 12, TOP = 12, BOTTOM = 42;

function chart(words, x, y, height = 250) {
  const across = (value) => LEFT + (value - x.from) / (x.to - x.from) * (WIDTH - LEFT - RIGHT);
  const up = (value) => height - BOTTOM - (value - y.from) / (y.to - y.from) * (height - TOP - BOTTOM);
  const root = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": words });
  const base = height - BOTTOM;
  for (const value of x.ticks) {
    root.append(make("line", { class: "axis", x1: across(value), x2: across(value), y1: base, y2: base + 4 }),
      make("text", { x: across(value), y: base + 17, "text-anchor": "middle" }, x.say(value)));
  }
  for (const value of y.ticks) {
    root.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value) }),
      make("text", { x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, y.say(value)));
  }
  const middle = (TOP + base) / 2;
  root.append(
    make("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: base, y2: base }),
    make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
    make("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, y.label));
  const within = (value) => Math.min(Math.max(value, y.from), y.to);
  return {
    root,
    line: (points, look) => root.append(make("polyline", {
      points: points.map(([a, b]) => `${across(a)},${up(b)}`).join(" "), fill: "none",
      "stroke-width": 2, ...look })),
    bar: (a, b, low, high, look) => root.append(make("rect", {
      x: across(a), width: across(b) - across(a) - 1, y: up(high), height: up(low) - up(high), ...look })),
    upright: (a, look) => root.append(make("line", {
      x1: across(a), x2: across(a), y1: TOP, y2: base, "stroke-width": 2, ...look })),
    dot: (a, b, look) => root.append(make("circle", { cx: across(a), cy: up(within(b)), r: 6, ...look })),
    say: (a, b, text, look) => root.append(make("text", { x: across(a), y: up(b), ...look }, text)),
  };
}

function figure(drawn, caption) {
  return make("figure", {}, drawn, make("figcaption", {}, caption));
}

// rows: [name, cell, cell, ...]; a cell is a text, or a text and the name that tests know it by
function table(caption, head, rows) {
  const cells = (row) => row.map((cell, place) => {
    const [text, score] = [cell].flat();
    const cellIs = place ? make("td", score ? { "data-score": score } : {}) : make("th", { scope: "row" });
    cellIs.append(text);
    return cellIs;
  });
  const top = make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, top),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
}

// -- the threshold ---------------------------------------------------------------------------
const CUTS = Array.from({ length: 99 }, (_, place) => (place + 1) / 100);
const PREVALENCES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5];

// An image is called positive at or above the threshold, as in cxrlib.metrics.
function confusion(data, cut) {
  const counts = { found: 0, missed: 0, alarms: 0, spared: 0 };
  data.p.forEach((p, film) => {
    counts[data.ill[film] ? (p >= cut ? "found" : "missed") : (p >= cut ? "alarms" : "spared")] += 1;
  });
  return counts;
}

function rates({ found, missed, alarms, spared }) {
  return { sensitivity: found / (found + missed), specificity: spared / (spared + alarms) };
}

// Vickers and Elkin 2006: true alarms minus false ones at the odds of the threshold, per film
function netBenefit({ sensitivity, specificity }, prevalence, cut) {
  return prevalence * sensitivity - (1 - prevalence) * (1 - specificity) * cut / (1 - cut);
}

function patients(data, cut) {
  const called = [new Set(), new Set()], all = [new Set(), new Set()]; // of the healthy, of the ill
  data.p.forEach((p, film) => {
    all[data.ill[film]].add(data.patient[film]);
    if (p >= cut) called[data.ill[film]].add(data.patient[film]);
  });
  return { ill: all[1].size, missed: all[1].size - called[1].size, well: all[0].size, alarmed: called[0].size };
}

function threshold(form, data) {
  const cutNow = slider(form, "Threshold", CUTS, 0.5, (cut) => cut.toFixed(2));
  const shareNow = slider(form, "Prevalence: share of the ill", PREVALENCES, 0.1,
    (share) => percent(share, share < 0.01 ? 1 : 0));
  const curve = CUTS.map((cut) => [cut, rates(confusion(data, cut))]);
  return () => {
    const cut = cutNow(), prevalence = shareNow(), where = percent(prevalence, prevalence < 0.01 ? 1 : 0);
    const counts = confusion(data, cut), { found, missed, alarms, spared } = counts;
    const now = rates(counts), people = patients(data, cut);
    const trueAlarms = prevalence * now.sensitivity, falseAlarms = (1 - prevalence) * (1 - now.specificity);
    const calm = (1 - prevalence) * now.specificity, overlooked = prevalence * (1 - now.sensitivity);
    const ppv = trueAlarms / (trueAlarms + falseAlarms), npv = calm / (calm + overlooked);
    const benefit = netBenefit(now, prevalence, cut);
    const everybody = netBenefit({ sensitivity: 1, specificity: 0 }, prevalence, cut);
    const more = benefit > Math.max(everybody, 0) ? "more than" : "no more than";
    const said = [
      `At threshold ${cut.toFixed(2)}, ${missed} of ${found + missed} films of the ill are missed`,
      ` (${people.missed} of ${people.ill} ill patients on every film),`,
      ` and ${alarms} of ${alarms + spared} films of the healthy raise an alarm`,
      ` (${people.alarmed} of ${people.well} healthy patients at least once).`,
      ` Where ${where} are ill, ${percent(ppv)} of those called ill are ill.`,
      ` Net benefit ${number(benefit, 4)}: ${more} a rule that looks at no film gives.`,
    ].join("");
    const scores = [
      ["sensitivity: of the ill, called ill", [percent(now.sensitivity), "sensitivity"]],
      ["specificity: of the healthy, called healthy", [percent(now.specificity), "specificity"]],
      [`PPV: of those called ill, ill (prevalence ${where})`, [percent(ppv), "ppv"]],
      [`NPV: of those called healthy, healthy (prevalence ${where})`, [percent(npv), "npv"]],
      ["net benefit of the model, per film", [number(benefit, 4), "benefit"]],
      ["net benefit of acting on everybody", [number(everybody, 4), "everybody"]],
    ];
    const films = [["healthy", [spared, "spared"], [alarms, "alarms"]],
      ["ill", [missed, "missed"], [found, "found"]]];
    return { said, parts: [
      figure(heaps(data, cut), "How the answers lie: films of the ill upwards, of the healthy "
        + "downwards. Pale: called healthy."),
      figure(decisions(curve, prevalence, cut, benefit), `Decision curve where ${where} are ill. `
        + "Blue: the model; dashed: act on everybody; dotted: on nobody. The dot is your threshold "
        + "(hollow: it lies below the picture), which weighs one missed patient like "
        + `${Number(((1 - cut) / cut).toPrecision(2))} false alarms.`),
      table("Films", ["truth", "called healthy", "called ill"], films),
      table(`At threshold ${cut.toFixed(2)}`, ["score", "value"], scores),
    ] };
  };
}

function heaps(data, cut) {
  const bins = [0, 1].map((ill) => Array.from({ length: 20 }, (_, bin) => {
    const here = data.p.filter((p, film) => data.ill[film] === ill && Math.min(Math.floor(p * 20), 19) === bin);
    return { all: here.length, called: here.filter((p) => p >= cut).length };
  }));
  const top = Math.ceil((Math.max(...bins.flat().map(({ all }) => all)) + 1) / 5) * 5;
  const drawn = chart(`Films by probability; the threshold stands at ${cut.toFixed(2)}`,
    { label: "predicted probability of COVID-19", ...SHARE },
    { label: "films", from: -top, to: top, ticks: [-top, 0, top], say: (films) => Math.abs(films) });
  for (let bin = 0; bin < 20; bin++) {
    for (const [ill, fill, side] of [[1, VERMILLION, 1], [0, GREEN, -1]]) {
      const { all, called } = bins[ill][bin];
      for (const [from, to, opacity] of [[0, called, 1], [called, all, 0.45]]) {
        const ends = [side * from, side * to].sort((a, b) => a - b);
        drawn.bar(bin / 20, (bin + 1) / 20, ...ends, { fill, "fill-opacity": opacity });
      }
    }
  }
  drawn.upright(cut, { class: "now" });
  drawn.say(0.02, top * 0.85, "ill");
  drawn.say(0.02, -top * 0.9, "healthy");
  return drawn.root;
}

// The steps of an axis: 1, 2 or 5 times a power of ten, so that two of them reach about the top
function ticks(top) {
  const power = 10 ** Math.floor(Math.log10(top / 2));
  const step = power * [5, 2, 1].find((times) => times * power <= top / 2);
  const say = (value) => value.toFixed(Math.max(0, -Math.floor(Math.log10(step))));
  return { ticks: [0, 1, 2, 3].map((times) => times * step).filter((value) => value <= 1.1 * top), say };
}

function decisions(curve, prevalence, cut, benefit) {
  const model = curve.map(([at, rate]) => [at, netBenefit(rate, prevalence, at)]);
  const all = CUTS.map((at) => [at, netBenefit({ sensitivity: 1, specificity: 0 }, prevalence, at)]);
  const top = Math.max(1e-4, ...model.concat(all).map((point) => point[1])), low = -0.4 * top;
  const drawn = chart(`Net benefit against the threshold; at ${cut.toFixed(2)} it is ${number(benefit, 4)}`,
    { label: "threshold: probability from which one would act", ...SHARE },
    { label: "net benefit", from: low, to: 1.1 * top, ...ticks(top) });
  const inside = (points) => points.filter((point) => point[1] >= low);
  drawn.line(inside(all), { class: "other", "stroke-dasharray": "6 4" });
  drawn.line([[0, 0], [1, 0]], { class: "other", "stroke-dasharray": "2 3" });
  drawn.line(inside(model), { stroke: BLUE });
  drawn.dot(cut, benefit, { class: "here", fill: benefit < low ? "none" : VERMILLION });
  return drawn.root;
}

// -- the knob --------------------------------------------------------------------------------
function knob(form, data, box) {
  const sheets = box.querySelectorAll(".sheet img");
  const at = slider(form, "Knob: share of patients whose scanner follows their label",
    data.level.map((_, place) => place), 0, (place) => data.level[place].toFixed(1));
  return () => {
    const place = at(), finding = data.finding[place];
    const score = (name) => `${data[name][place].toFixed(2)} `
      + `(${data[`${name}_low`][place].toFixed(2)} to ${data[`${name}_high`][place].toFixed(2)})`;
    const answers = data.answers[place].map((p) => p.toFixed(2));
    const rows = [
      ["AUC inside, on the scanners of training (95 % interval)", [score("auc_inside"), "auc_inside"]],
      ["AUC on new scanners (95 % interval)", [score("auc_new"), "auc_new"]],
      ["share of what speaks for COVID-19 that lies in the lungs",
        [percent(data.places_inside[place]), "places_inside"]],
      ["share of the film that the lungs take", [percent(data.area_inside[place]), "area_inside"]],
      ["what moves the answer: the finding, not the scanner", [percent(finding), "finding"]],
    ];
    const sheet = sheets[place].cloneNode();
    sheet.loading = "eager";
    return {
      said: `Knob at ${data.level[place].toFixed(1)}: AUC ${score("auc_inside")} inside, `
        + `${score("auc_new")} on new scanners. Of what moves the network's answer, `
        + `${percent(finding, 0)} is the finding and ${percent(1 - finding, 0)} the scanner; `
        + `${percent(data.places_inside[place], 0)} of what speaks for COVID-19 lies in the lungs.`,
      parts: [
        figure(sheet, "Above: healthy phantoms. Below: phantoms with COVID-19. Orange speaks for "
          + "COVID-19, blue against it. The network gives COVID-19 the probabilities "
          + `${answers.slice(0, 3).join(", ")} above and ${answers.slice(3).join(", ")} below.`),
        figure(scores(data, place), "Blue: inside. Orange: on new scanners. Bars: 95 % intervals. "
          + "Dotted: by chance. The upright line is your knob."),
        table(`Knob at ${data.level[place].toFixed(1)}`, ["measured", "value"], rows),
      ],
    };
  };
}

function scores(data, place) {
  const drawn = chart("AUC inside and on new scanners, against the knob",
    { label: "the knob", from: -0.03, to: 1.03, ticks: [0, 0.25, 0.5, 0.75, 1], say: String },
    { label: "AUC", from: 0.4, to: 1.02, ticks: [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], say: (auc) => auc.toFixed(1) });
  drawn.upright(data.level[place], { class: "now" });
  drawn.line([[0, 0.5], [1, 0.5]], { class: "other", "stroke-dasharray": "2 3" });
  for (const [name, colour, aside] of [["auc_inside", BLUE, -0.006], ["auc_new", VERMILLION, 0.006]]) {
    drawn.line(data.level.map((level, one) => [level, data[name][one]]), { stroke: colour });
    data.level.forEach((level, one) => drawn.line(
      [[level + aside, data[`${name}_low`][one]], [level + aside, data[`${name}_high`][one]]], { stroke: colour }));
    drawn.dot(data.level[place], data[name][place], { class: "here", fill: colour });
  }
  return drawn.root;
}

// -- the split -------------------------------------------------------------------------------
const DEALS = Array.from({ length: 20 }, (_, place) => place);

function split(form, data) {
  const wayNow = choice(form, "Deal", { films: "films", patients: "patients" });
  const labelsNow = choice(form, "Labels",
    { true: "true ones", shuffled: "shuffled among the patients: nothing to learn" });
  const eachNow = slider(form, "Films of each patient", [1, 2, 3, 4], 3, String);
  const dealNow = slider(form, "Deal number", DEALS, 0, (deal) => `${deal + 1} of ${DEALS.length}`);
  return () => {
    const way = wayNow(), labels = labelsNow(), each = eachNow(), deal = dealNow();
    const mean = (films, dealt) => sum(data.scores[`${films} ${labels} ${dealt}`]) / DEALS.length;
    const tested = data.dealt[`${each} ${labels} ${way}`][deal];
    const people = data.ill.map((_, patient) => tested.slice(patient * each, (patient + 1) * each));
    const inTest = people.filter((films) => films.includes("1"));
    const torn = inTest.filter((films) => films.includes("0")).length;
    const scores = data.scores[`${each} ${labels} ${way}`], films = sum([...tested].map(Number));
    const memory = labels === "true" ? "" : " Nobody can learn these labels: above 50 % is memory, or the luck of one deal.";
    return {
      said: `Dealt: ${way}. ${films} of ${tested.length} films are for testing. They show `
        + `${inTest.length} patients, and ${torn} of them stand in training too. `
        + `${percent(scores[deal])} of the test films are called right.${memory}`,
      parts: [
        figure(hands(people, `${torn} of ${inTest.length} tested patients stand in training too`),
          "40 patients, each a row of films. Filled: a test film. Hollow: for training. "
          + "Boxed: a patient who stands on both sides."),
        figure(means(mean, { each, way, scores, deal }), "Mean of 20 deals. Orange: films dealt; "
          + "blue: patients dealt. Small dots: the 20 deals of your choice; large: this one. "
          + "Dotted: a coin."),
        table("Test films called right", ["dealt", "share"], [
          [`${way}, deal ${deal + 1}`, [percent(scores[deal]), "accuracy"]],
          ["films, mean of 20 deals", [percent(mean(each, "films")), "films"]],
          ["patients, mean of 20 deals", [percent(mean(each, "patients")), "patients"]]]),
      ],
    };
  };
}

function hands(people, words) {
  const root = make("svg", { viewBox: "0 0 400 190", role: "img", "aria-label": words });
  people.forEach((films, patient) => {
    const left = 4 + 49 * (patient % 8), top = 6 + 37 * Math.floor(patient / 8);
    [...films].forEach((one, film) => root.append(make("rect", { class: one === "1" ? "test" : "training",
      x: left + 4 + 9 * film, y: top + 5, width: 7, height: 16, fill: one === "1" ? BLUE : "none" })));
    if (new Set(films).size > 1) root.append(make("rect", { class: "torn", fill: "none", stroke: VERMILLION,
      "stroke-width": 2, x: left, y: top, width: 6 + 9 * films.length, height: 26 }));
  });
  return root;
}

function means(mean, { each, way, scores, deal }) {
  const drawn = chart("Test films called right, against the films of each patient",
    { label: "films of each patient", from: 0.8, to: 4.2, ticks: [1, 2, 3, 4], say: String },
    { label: "called right", from: 0.2, to: 1.02, ticks: [0.2, 0.4, 0.6, 0.8, 1], say: (share) => percent(share, 0) });
  drawn.line([[0.8, 0.5], [4.2, 0.5]], { class: "other", "stroke-dasharray": "2 3" });
  const colours = { films: VERMILLION, patients: BLUE };
  for (const [name, stroke] of Object.entries(colours)) {
    drawn.line([1, 2, 3, 4].map((films) => [films, mean(films, name)]), { stroke });
  }
  for (const score of scores) drawn.dot(each, score, { r: 3, fill: colours[way] });
  drawn.dot(each, scores[deal], { class: "here", fill: colours[way] });
  return drawn.root;
}

// -- two calculators -------------------------------------------------------------------------
const whole = (text, least) => /^\d{1,9}$/.test(text) && Number(text) >= least ? Number(text) : null;

// Wilson 1927: the shares that `count` of `n` does not contradict at 95 %
function wilson(form) {
  const countNow = entry(form, "Hits", "12"), sizeNow = entry(form, "Patients", "12");
  return () => {
    const n = whole(sizeNow(), 1), count = whole(countNow(), 0);
    if (n === null || count === null || count > n) {
      return { said: "Give two whole numbers: at least one patient, and no more hits than patients.", parts: [] };
    }
    const share = count / n, z = 1.959963984540054, more = z * z / n;
    const reach = z * Math.sqrt(share * (1 - share) / n + more / (4 * n));
    const [below, above] = [-reach, reach].map((side) => (share + more / 2 + side) / (1 + more));
    const low = count === 0 ? 0 : below, high = count === n ? 1 : above; // without rounding errors
    return { said: `${count} of ${n} is ${percent(share)}; 95 % interval ${percent(low)} `
      + `to ${percent(high)}.`, parts: [] };
  };
}

// In whole numbers: half units of the last printed digit, so that no rounding of ours comes in
function rounding(form) {
  const textNow = entry(form, "Printed", "0.9375"), mostNow = entry(form, "Images at most", "100");
  return () => {
    const most = whole(mostNow(), 1), [, before, after = ""] = textNow().match(/^([01]?)\.(\d{1,6})$/) || [];
    const unit = 10 ** after.length, last = Number(before + after);
    if (!after || last > unit || most === null || most > 6000) {
      return { said: "Give a share as printed, such as 0.9375, and a size from 1 to 6000.", parts: [] };
    }
    const found = [];
    for (let n = 1; n <= most; n++) { // the least count that reaches the printed figure's lower end
      const count = Math.max(0, Math.ceil((2 * last - 1) * n / (2 * unit)));
      if (count <= n && 2 * unit * count < (2 * last + 1) * n) found.push(`${count} of ${n}`);
    }
    const few = found.slice(0, 8).join(", ") + (found.length > 8 ? " ..." : "");
    return { said: `${found.length} of ${most} sizes can print ${textNow()}${few && `; with the least count of each: ${few}`}.`, parts: [] };
  };
}

// -- each explorer takes the form for its controls, its numbers and its box; it gives what tells
// -- and draws the present state
const EXPLORERS = { threshold, knob, split, wilson, rounding };

function begin(box) {
  const data = JSON.parse(box.querySelector("script")?.textContent ?? "null");
  const form = make("form", {}), shown = make("div", { class: "shown" });
  const said = make("p", { class: "said" });
  const told = make("p", { class: "visually-hidden", role: "status" }); // once the slider rests
  const now = EXPLORERS[box.dataset.explorer](form, data, box);
  let resting;
  const redraw = () => {
    const { said: text, parts } = now();
    said.textContent = text;
    shown.replaceChildren(...parts);
    clearTimeout(resting);
    resting = setTimeout(() => { told.textContent = text; }, 500);
  };
  form.addEventListener("input", redraw);
  form.addEventListener("submit", (event) => event.preventDefault());
  redraw();
  const note = data ? [make("p", { class: "note" }, `${data.note} Not for clinical use.`)] : [];
  box.append(make("div", { class: "moving" }, form, said, told, shown, ...note));
  box.classList.add("live");
}

const beginAll = () => document.querySelectorAll("div.explorer").forEach(begin);
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", beginAll);
else beginAll();
})();

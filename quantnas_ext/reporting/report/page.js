// The report's page: one run's panel, the table of all, two runs beside each other. What comes from files is set as text only.
"use strict";

let content, images, chosen;
const at = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(at(id).textContent.trim()), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function fact(name, value, more = "") {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null));
}

function choose(name) {
  chosen = name;
  if (at("front-chart")) markChosen(at("front-chart"), name);
  for (const row of document.querySelectorAll("#runs-table tbody tr")) row.classList.toggle("chosen", row.dataset.name === name);
  at("shown").value = name;
  return showRun(content.trials.find((trial) => trial.name === name));
}

// ---------------------------------------------------------------------------------------------------- one run

async function showRun(trial) {
  at("run-title").textContent = `Run ${trial.name}`;
  const body = at("run-body");
  const dataset = at("dataset")?.value;
  const scores = trial.scores[dataset] ?? {};
  const psnr = scores.ours?.psnr;
  const gain = psnr && scores.bicubic?.psnr ? `${Math.abs(psnr - scores.bicubic.psnr).toFixed(2)} ${psnr >= scores.bicubic.psnr ? "above" : "below"} bicubic` : "";
  const float = scores.full_precision?.psnr ? `${scores.full_precision.psnr.toFixed(2)} in full precision` : "";
  const facts = el("dl", { class: "facts" },
    fact("status", trial.status), fact("method", trial.method), fact("seed", String(trial.seed ?? "–")),
    psnr ? fact(`PSNR on ${dataset}`, `${psnr.toFixed(2)} dB`, [gain, float].filter(Boolean).join(", ")) : fact("PSNR", "not evaluated"),
    scores.ours?.ssim ? fact("SSIM", scores.ours.ssim.toFixed(4)) : null,
    Object.entries(trial.costs).map(([key, value]) => fact(trial.cost_names[key], `${si(value)}${key === "bytes" ? "B" : ""}`,
      key.startsWith("bitops") && trial.budget && key === "bitops_32" ? `${(100 * value / trial.budget).toFixed(1)} % of the budget` : "")),
    trial.least_decided === undefined ? null : fact("least decided block", trial.least_decided.toFixed(2), trial.least_decided_block),
    trial.search_seconds ? fact("search", `${Math.round(trial.search_seconds)} s`) : null);
  const parts = [facts, trial.error ? el("pre", {}, trial.error) : null, crops(trial), drawing(trial), layers(trial)];
  const panels = [];
  if (trial.curves) parts.push(...search(trial, panels));
  parts.push(again(trial));
  body.replaceChildren(...parts.filter(Boolean));
  for (const [element, spec, said] of panels) await draw(element, spec, said);
}

function crops(trial) {
  if (!trial.crops.length) return null;
  const kinds = { lr: "LR", bicubic: "bicubic", ours: "ours", hr: "HR" };
  const select = (label, value) => el("label", {}, `${label} `, el("select", { "aria-label": `${label} image of the sliders` }, Object.entries(kinds).map(([key, name]) => el("option", { value: key, ...(key === value ? { selected: "" } : {}) }, name))));
  const left = select("left", "bicubic"), right = select("right", "ours");
  const grid = el("div", { class: "crops" });
  const fill = () => grid.replaceChildren(...trial.crops.map((crop) => cropFigure(crop, kinds, left.lastChild.value, right.lastChild.value)));
  left.addEventListener("change", fill);
  right.addEventListener("change", fill);
  fill();
  return el("div", {}, el("div", { class: "title" }, el("h3", {}, "Images"), el("div", { class: "controls" }, left, right)), grid);
}

function cropFigure(crop, kinds, left, right) {
  const alt = (kind) => `${kinds[kind]}: a square of ${crop.image}, ${crop.side} pixels a side in high resolution`;
  const psnr = (kind) => (crop.psnr[kind] ? `${crop.psnr[kind].toFixed(2)} dB` : "");
  const box = el("div", { class: "slider" },
    el("img", { src: images[crop[right]], alt: alt(right), draggable: "false" }), el("img", { class: "over-it", src: images[crop[left]], alt: alt(left), draggable: "false" }),
    el("span", { class: "on-left" }, kinds[left]), el("span", { class: "on-right" }, kinds[right]));
  const cut = el("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": `how much of ${crop.image} is ${kinds[left]} rather than ${kinds[right]}, in percent` });
  const move = () => box.style.setProperty("--cut", `${cut.value}%`);
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const area = box.getBoundingClientRect();
    cut.value = (100 * (event.clientX - area.x)) / area.width;
    move();
  };
  cut.addEventListener("input", move);
  box.addEventListener("pointerdown", drag);
  box.addEventListener("pointermove", drag);
  move();
  const strip = el("div", { class: "strip" }, Object.keys(kinds).map((kind) => el("div", {}, el("img", { src: images[crop[kind]], alt: alt(kind) }), kinds[kind], el("br"), psnr(kind))));
  return el("figure", {}, box, cut, strip, el("figcaption", {}, `${crop.image}; PSNR of the whole image, on Y`));
}

function drawing(trial) {
  if (!trial.blocks) return null;
  const said = trial.blocks.map((one) => `${one.block}: ${[one.operation, one.bits].filter(Boolean).join(" at ")}`);
  const list = el("details", {}, el("summary", {}, `Operation and bits of ${said.length} blocks as a list`),
    el("div", { class: "scroll" }, table(["block", "operation", "bits"], trial.blocks.map((one) => [one.block, one.operation, one.bits]))));
  const picture = trial.drawing === null ? el("p", { class: "hint" }, "This space has no drawing.") : el("div", { class: "drawing", tabindex: "0", role: "group", "aria-label": "drawing of the architecture" }, el("img", { src: images[trial.drawing], alt: `Architecture. ${said.join("; ")}.` }));
  return el("div", {}, el("h3", {}, "Architecture"), picture, list);
}

function layers(trial) {
  if (!trial.layers) return null;
  const total = trial.layers.reduce((sum, layer) => sum + layer.bitops, 0);
  const path = (text) => el("span", {}, text.split(".").flatMap((part, i) => (i ? [el("wbr"), `.${part}`] : [part])));
  const rows = trial.layers.map((layer) => [path(layer.path), layer.block || "fixed", layer.operation, `${layer.weight_bits} × ${layer.activation_bits}${layer.searched ? "" : ", fixed"}`, [layer.macs, si(layer.macs)], [layer.bitops, si(layer.bitops)], [layer.share, el("span", {}, `${(100 * layer.share).toFixed(1)} %`, bar(layer.share))]]);
  const largest = trial.layers.reduce((one, other) => (one.bitops >= other.bitops ? one : other), trial.layers[0]);
  const [, , height, width] = trial.input.length === 4 ? trial.input : [0, 0, ...trial.input.slice(-2)];
  return el("div", {}, el("h3", {}, "Layers and their share of the BitOps"),
    el("p", { class: "formula" }, `BitOps = Σ MACs × weight bits × activation bits = ${si(total, 3)} over ${rows.length} layers, at ${height} × ${width}.`,
      largest ? ` The largest: ${largest.macs.toLocaleString("en")} × ${largest.weight_bits} × ${largest.activation_bits} = ${si(largest.bitops)}, ${(100 * largest.share).toFixed(1)} % (${largest.path}).` : ""),
    el("div", { class: "scroll tall", tabindex: "0", role: "group", "aria-label": "Table of layers" }, sortable(table(["layer", "block", "operation", "weight × activation bits", "MACs", "BitOps", "share"], rows))));
}

function bar(share) {
  const inner = el("i");
  inner.style.width = `${100 * share}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

function search(trial, panels) {
  const panel = (heading, of, spec, said) => {
    const chart = el("div", { class: "chart" });
    panels.push([chart, spec, said]);
    return el("figure", {}, el("h4", {}, heading), of ? el("p", { class: "of" }, of) : null, chart, el("figcaption", of ? { class: "away" } : {}, said));
  };
  const curves = searchCurves(trial).map(([heading, spec, said]) => panel(heading, "", spec, said));
  const shades = shadesOf(trial);
  const blocks = trial.distributions.map((block) => {
    const name = ({ operation, bits }) => [operation, bits].filter(Boolean).join(", ");
    const last = (i) => (block.thousandths[i].at(-1) / 1000).toFixed(2);
    const second = block.candidates.slice(1).map((candidate, i) => [block.thousandths[i + 1].at(-1), candidate, i + 1]).sort((a, b) => b[0] - a[0])[0];
    const said = `${block.block}: ${name(block.candidates[0])} ends at ${last(0)}${second ? `, next is ${name(second[1])} at ${last(second[2])}` : ""}.`;
    return panel(block.block, `${name(block.candidates[0])}  ${last(0)}`, distributionSpec(trial, block, shades), said);
  });
  const swatch = (background, opacity, text) => {
    const square = el("i");
    Object.assign(square.style, { background, opacity });
    return el("li", {}, square, text);
  };
  const legend = el("ul", { class: "legend" }, Object.entries(trial.operations).map(([name, paint]) => swatch(paint, 0.9, name)), Object.entries(shades).map(([name, shade]) => swatch("var(--ink)", shade * 0.8, name)));
  return [
    el("h3", {}, "The search"), trial.warmup_epochs ? el("p", { class: "hint" }, `Grey: the first ${trial.warmup_epochs} epochs, in which only the weights learn.`) : null, el("div", { class: "panels" }, curves),
    el("h3", {}, "Distributions over the epochs"), el("p", { class: "hint" }, "Joint probability of operation and bits; the chosen candidate lies at the bottom, under the line."), legend, el("div", { class: "panels small" }, blocks),
  ];
}

function again(trial) {
  if (!trial.config_text) return null;
  const copy = (text) => el("button", { type: "button", onclick: async (event) => {
    const button = event.currentTarget;
    await navigator.clipboard?.writeText(text);
    button.textContent = "copied";
  } }, "copy");
  const text = (heading, content) => (content ? el("details", {}, el("summary", {}, heading), copy(content), el("pre", { tabindex: "0" }, content)) : null);
  const versions = Object.entries(trial.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", ");
  return el("div", {}, el("h3", {}, "How to make it again"),
    el("p", { class: "hint" }, `Seed ${trial.seed ?? "unknown"}${versions ? `; ${versions}` : ""}. Made in ${trial.folder}.`),
    trial.commands.length ? el("div", {}, el("p", { class: "hint" }, `Save the configuration as again.yaml${trial.curves ? "" : ", the architecture file as again_architecture.yaml"}, then:`), el("pre", { tabindex: "0" }, trial.commands.join("\n"))) : null,
    text("The whole configuration", trial.config_text), text("The architecture file", trial.architecture_text));
}

// ---------------------------------------------------------------------------------------------------- tables

/** A table; a cell is text, an element, or [value to sort by, what is shown] for numbers. */
function table(headings, rows) {
  const numeric = headings.map((_, i) => rows.some((row) => Array.isArray(row[i])));
  const cell = (value, i) => (Array.isArray(value) ? el("td", { class: "number", "data-value": value[0] ?? "" }, value[1]) : el("td", { class: numeric[i] ? "number" : "wrap", "data-value": value?.textContent ?? value ?? "" }, value ?? ""));
  return el("table", {}, el("thead", {}, el("tr", {}, headings.map((heading, i) => el("th", { scope: "col", class: numeric[i] ? "number" : "" }, heading)))), el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))));
}

/** Let the headings of a table sort it: numbers as such, empty cells last. */
function sortable(given) {
  const headings = [...given.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    const button = el("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const numbers = !Number.isNaN(Number(a)) && !Number.isNaN(Number(b));
        return (numbers ? a - b : a.localeCompare(b, "en", { numeric: true })) * (down ? -1 : 1);
      };
      const body = given.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
    });
  });
  return given;
}

function prepareRuns() {
  const runs = sortable(at("runs-table"));
  for (const row of runs.tBodies[0].rows) {
    const cell = row.cells[0], name = row.dataset.name;
    cell.replaceChildren(el("button", { type: "button", class: "name", onclick: () => { choose(name); at("run-title").focus({ preventScroll: true }); at("run").scrollIntoView(); } }, cell.textContent));
  }
  const filter = () => {
    const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of runs.tBodies[0].rows) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      count += !row.hidden;
    }
    at("filter-count").textContent = words.length ? `${count} of ${runs.tBodies[0].rows.length}` : "";
  };
  at("filter").addEventListener("input", filter);
}

function compare() {
  const [first, second] = ["first", "second"].map((id) => content.trials.find((trial) => trial.name === at(id).value));
  const figures = (trial) => {
    const found = { method: trial.method, status: trial.status, ...trial.costs };
    for (const [data, networks] of Object.entries(trial.scores)) for (const [network, given] of Object.entries(networks)) for (const [name, value] of Object.entries(given)) if (["psnr", "ssim", "lpips"].includes(name)) found[`${name} of ${network} on ${data}`] = value;
    for (const key of ["entropy", "least_decided", "search_seconds"]) if (trial[key] !== undefined) found[key] = trial[key];
    return found;
  };
  const names = { ...first.cost_names, ...second.cost_names };
  const shown = (value) => (value === undefined || value === null || value === "" ? "–" : typeof value !== "number" ? String(value) : Math.abs(value) >= 1e4 ? si(value) : String(Number(value.toPrecision(5))));
  const parts = [["Figures", figures], ["Architecture", (trial) => Object.fromEntries((trial.blocks ?? []).map((one) => [one.block, [one.operation, one.bits].filter(Boolean).join(" at ")]))], ["Configuration", (trial) => Object.fromEntries(Object.entries(trial.config).filter(([key]) => key !== "run"))]].map(([heading, of]) => {
    const [one, other] = [of(first), of(second)];
    const rows = [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((key) => one[key] !== other[key]).map((key) => {
      const numbers = heading === "Figures" && typeof one[key] === "number" && typeof other[key] === "number";
      const share = numbers && key in first.costs ? ` (${(100 * other[key] / one[key]).toFixed(0)} %)` : "";
      return [names[key] ?? (heading === "Figures" ? key.replaceAll("_", " ") : key), shown(one[key]), shown(other[key]), numbers ? `${other[key] > one[key] ? "+" : "−"}${shown(Math.abs(other[key] - one[key]))}${share}` : ""];
    });
    return el("div", {}, el("h3", {}, heading), rows.length ? el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${heading} that differ` }, table(["", first.name, second.name, heading === "Figures" ? "difference" : ""], rows)) : el("p", { class: "hint" }, "Nothing differs."));
  });
  at("compare-body").replaceChildren(...parts);
}

// ---------------------------------------------------------------------------------------------------- start

async function start() {
  const [data, code] = await Promise.all([unpacked("packed-data"), unpacked("packed-charts")]);
  ({ content, images } = JSON.parse(data));
  document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
  document.documentElement.classList.add("scripted");
  const names = content.trials.map((trial) => trial.name);
  for (const id of ["shown", "first", "second"]) at(id).replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  const front = async () => {
    if (!at("front-chart")) return;
    at("front-text").textContent = await drawFront(at("front-chart"), content, at("dataset").value, at("cost").value, choose);
    if (chosen) markChosen(at("front-chart"), chosen);
  };
  const everything = async () => { await front(); await choose(chosen); };
  for (const one of document.querySelectorAll("#front select")) one.closest("label").hidden = one.options.length < 2;
  prepareRuns();
  at("second").selectedIndex = Math.min(1, names.length - 1);
  at("compare").hidden = names.length < 2;
  for (const id of ["first", "second"]) at(id).addEventListener("change", compare);
  at("shown").addEventListener("change", () => choose(at("shown").value));
  for (const id of ["dataset", "cost"]) at(id)?.addEventListener("change", everything);
  if (names.length > 1) compare();
  chosen = content.start;
  await everything();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", everything);
  let narrow = innerWidth < 620;
  addEventListener("resize", () => { if (narrow !== innerWidth < 620) { narrow = !narrow; front(); } });
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  document.documentElement.classList.remove("scripted");
  document.querySelector(".lead").textContent += ` (This browser cannot show the charts: ${error.message})`;
});

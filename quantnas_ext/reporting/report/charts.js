// Charts of the report as Vega-Lite specifications; colours and sizes follow the page.
"use strict";

const prefixes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A number with an SI prefix: 1930000000 as "1.93 G". */
function si(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const [size, prefix] = prefixes.find(([size]) => Math.abs(value) >= size) ?? [1, ""];
  return `${(value / size).toFixed(size === 1 && Number.isInteger(value) ? 0 : digits)} ${prefix}`.trim();
}

function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Of a method or a candidate, lighter on a dark page. */
function paint(hex) {
  return matchMedia("(prefers-color-scheme: dark)").matches ? `#${[1, 3, 5].map((i) => Math.round(0.72 * parseInt(hex.slice(i, i + 2), 16) + 0.28 * 255).toString(16).padStart(2, "0")).join("")}` : hex;
}

/** Draw a specification; nothing in it is code (`ast`), and nothing is loaded. */
async function draw(element, spec, description) {
  if (!element.isConnected) return null; // another run is shown by now
  const [ink, faint, line] = ["ink", "faint", "line"].map(colour);
  const config = {
    background: null,
    font: "system-ui, Segoe UI, Roboto, sans-serif",
    view: { stroke: null },
    axis: { labelColor: faint, titleColor: ink, gridColor: line, gridOpacity: 0.6, domainColor: line, tickColor: line, labelFontSize: 11.5, titleFontSize: 12, titleFontWeight: 500 },
    legend: { labelColor: ink, titleColor: ink, labelFontSize: 12.5, symbolSize: 110, labelLimit: 260 },
    text: { color: faint },
    rule: { color: faint },
  };
  const old = element.view;
  const result = await vegaEmbed(element, { width: "container", autosize: { type: "fit-x", contains: "padding" }, description, config, ...spec }, {
    actions: false, renderer: "svg", ast: true, tooltip: { theme: "custom" },
  });
  old?.finalize();
  element.view = result.view;
  return result.view;
}

/** PSNR against a cost: runs by method, the hull of the front, bicubic interpolation and the paper's networks. */
async function drawFront(element, content, dataset, cost, choose) {
  const front = content.fronts[dataset][cost];
  const best = new Set(front.front);
  const points = content.trials.flatMap((trial) => {
    const psnr = trial.scores[dataset]?.ours?.psnr, value = trial.costs[cost];
    if (!value || psnr === null || psnr === undefined) return [];
    const dominated = !best.has(trial.name);
    const said = `${trial.name}: ${fixed(psnr, 2)} dB at ${si(value)}, ${trial.method}, seed ${trial.seed ?? "unknown"}, ${dominated ? "dominated" : "on the front"}`;
    return [{ name: trial.name, method: trial.method, seed: trial.seed, psnr, value, dominated, said, dB: fixed(psnr, 2), cost: si(value) }];
  });
  if (!points.length) {
    element.replaceChildren();
    return `No run has both this cost and a PSNR on ${dataset}.`;
  }
  const byName = Object.fromEntries(points.map((point) => [point.name, point]));
  const paper = content.paper.dataset === dataset && content.paper.cost === cost ? content.paper.points : [];
  const bicubic = content.trials.map((trial) => trial.scores[dataset]?.bicubic?.psnr).find((psnr) => psnr !== undefined && psnr !== null);
  const values = [...points.map((point) => point.value), ...paper.map((point) => point.bitops)];
  const heights = [...points, ...paper].map((point) => point.psnr).concat(bicubic ?? []);
  const room = Math.max(0.06, 0.08 * (Math.max(...heights) - Math.min(...heights)));
  const methods = Object.keys(content.styles).filter((method) => points.some((point) => point.method === method));
  const narrow = element.clientWidth < 560;
  const x = (field) => ({ field, type: "quantitative", title: `${content.costs.find((one) => one.key === cost).name} (logarithmic)`, scale: { type: "log", nice: false, domain: [Math.min(...values) / 1.25, Math.max(...values) * 1.25] }, axis: { format: "~s", tickCount: narrow ? 4 : 8, labelOverlap: true } });
  const y = { field: "psnr", type: "quantitative", title: `PSNR on ${dataset}, dB`, scale: { zero: false, nice: false, domain: [Math.min(...heights) - room, Math.max(...heights) + room] }, axis: { tickCount: 7 } };
  const domain = { domain: methods };
  const legend = methods.length ? { title: null, orient: "bottom", direction: "horizontal", columns: narrow ? 1 : 4 } : null;
  const colours = { field: "method", type: "nominal", scale: { ...domain, range: methods.map((method) => paint(content.styles[method].colour)) } };
  const layer = [
    ...(bicubic === undefined ? [] : [
      { data: { values: [{ psnr: bicubic }] }, mark: { type: "rule", strokeDash: [2, 4], aria: false }, encoding: { y } },
      { data: { values: [{ psnr: bicubic }] }, mark: { type: "text", align: "left", baseline: "bottom", x: 4, dy: -3, text: `bicubic ${fixed(bicubic, 2)} dB` }, encoding: { y } },
    ]),
    { data: { values: front.hull.map((name) => byName[name]) }, mark: { type: "line", strokeDash: [7, 4], strokeWidth: 1.4, color: colour("faint"), aria: false }, encoding: { x: x("value"), y } },
    ...(paper.length ? [
      { data: { values: paper }, mark: { type: "point", shape: "M0,-1L0.25,-0.3L1,-0.3L0.4,0.15L0.6,0.9L0,0.45L-0.6,0.9L-0.4,0.15L-1,-0.3L-0.25,-0.3Z", filled: true, size: 110, color: colour("ink") }, encoding: { x: x("bitops"), y, tooltip: [{ field: "method", title: "published" }, { field: "psnr", title: "PSNR, dB" }] } },
      { data: { values: paper }, mark: { type: "text", dy: -11, fontSize: 10.5 }, encoding: { x: x("bitops"), y, text: { field: "method" } } },
    ] : []),
    { name: "runs", data: { values: points }, mark: { type: "point", strokeWidth: 2, size: 130, opacity: 1 }, encoding: {
      x: x("value"), y,
      color: { ...colours, legend }, shape: { field: "method", type: "nominal", scale: { ...domain, range: methods.map((method) => content.styles[method].shape) }, legend },
      fill: { ...colours, legend },
      fillOpacity: { condition: { test: "datum.dominated", value: 0 }, value: 1 },
      strokeOpacity: { condition: { test: "datum.dominated", value: 0.6 }, value: 1 },
      description: { field: "said" },
      tooltip: ["name", "method", "seed", { field: "dB", title: "PSNR, dB" }, { field: "cost" }].map((one) => (typeof one === "string" ? { field: one } : one)),
    } },
  ];
  const said = frontSaid(content, dataset, cost, points, front, bicubic, paper);
  await draw(element, { height: narrow ? 300 : 400, layer }, said);
  makeChoosable(element, points, choose);
  return said;
}

/** The front in words, for those who do not see it. */
function frontSaid(content, dataset, cost, points, front, bicubic, paper) {
  const name = content.costs.find((one) => one.key === cost).name;
  const best = front.front.map((run) => points.find((point) => point.name === run)).map((point) => `${point.name} with ${point.dB} dB at ${point.cost}`);
  const line = bicubic === undefined ? "" : ` Bicubic interpolation, the dotted line, has ${fixed(bicubic, 2)} dB.`;
  const hull = front.hull.length > 1 ? " The dashed line is its hull." : "";
  const hollow = points.some((point) => point.dominated) ? " Dominated runs are hollow." : "";
  const published = paper.length ? ` Stars are published networks: ${paper.map((one) => `${one.psnr} dB at ${si(one.bitops)} (${one.method})`).join("; ")}.` : "";
  return `${points.length} ${points.length === 1 ? "run" : "runs"} by ${name} and PSNR on ${dataset}. On the front: ${best.join("; ")}.${hull}${hollow}${line}${published}`;
}

/** Let points be reached by the keyboard (arrows go by cost) and by a finger that lands near one. */
function makeChoosable(element, points, choose) {
  const marks = [...element.querySelectorAll("g.runs_marks path")].filter((path) => path.__data__?.datum?.name !== undefined);
  marks.sort((a, b) => a.__data__.datum.value - b.__data__.datum.value || a.__data__.datum.psnr - b.__data__.datum.psnr);
  marks.forEach((path, index) => {
    const { name, said } = path.__data__.datum;
    path.dataset.name = name;
    path.setAttribute("tabindex", index ? "-1" : "0");
    path.setAttribute("role", "button");
    path.setAttribute("aria-label", said);
    path.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step || event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        const next = marks[Math.min(marks.length - 1, Math.max(0, index + (step ?? 0)))];
        choose(next.dataset.name);
        next.focus();
      }
    });
  });
  element.querySelector("svg").onclick = (event) => {
    const away = (path) => {
      const box = path.getBoundingClientRect();
      return Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    };
    const nearest = marks.reduce((one, other) => (one && away(one) <= away(other) ? one : other), null);
    if (nearest && away(nearest) < 36) choose(nearest.dataset.name);
  };
}

/** Show in a drawn front which run is chosen. */
function markChosen(element, name) {
  for (const path of element.querySelectorAll("path[data-name]")) {
    path.classList.toggle("chosen", path.dataset.name === name);
    path.setAttribute("aria-pressed", String(path.dataset.name === name));
    path.setAttribute("tabindex", path.dataset.name === name ? "0" : "-1");
  }
}

const epochAxis = { field: "epoch", type: "quantitative", title: "epoch", scale: { nice: false }, axis: { format: "d", tickMinStep: 1, tickCount: 6, grid: false } };

/** The curves of a search: [heading, specification, what it says in words]. */
function searchCurves(trial) {
  const { curves, warmup_epochs: warmup } = trial;
  const series = (names) => names.flatMap(([key, what]) => curves.epochs.map((epoch, i) => ({ epoch, value: curves[key][i], what })).filter((row) => row.value !== null));
  const ends = (key, show) => {
    const known = curves[key].filter((value) => value !== null);
    return known.length ? `from ${show(known[0])} to ${show(known.at(-1))}` : "not measured";
  };
  const chart = (names, { format, lines = [], domain, zero = false } = {}) => ({ height: 150, layer: [
    ...(warmup ? [{ data: { values: [{ from: curves.epochs[0], to: Math.min(warmup, curves.epochs.at(-1)) }] }, mark: { type: "rect", color: colour("faint"), opacity: 0.1, aria: false }, encoding: { x: { ...epochAxis, field: "from" }, x2: { field: "to" } } }] : []),
    ...lines.map(([value, text]) => ({ data: { values: [{ value, text }] }, layer: [{ mark: { type: "rule", strokeDash: [4, 3] }, encoding: { y: { field: "value", type: "quantitative" } } }, { mark: { type: "text", align: "right", baseline: "bottom", dy: -2, x: "width", fontSize: 10.5 }, encoding: { y: { field: "value", type: "quantitative" }, text: { field: "text" } } }] })),
    { data: { values: series(names) }, mark: { type: "line", strokeWidth: 2, point: curves.epochs.length < 3 }, encoding: {
      x: epochAxis, y: { field: "value", type: "quantitative", title: null, scale: { zero, ...(domain ? { domain } : {}) }, axis: { ...(format ? { format } : {}), tickCount: 4 } },
      ...(names.length > 1 ? { color: { field: "what", type: "nominal", scale: { range: ["#0072b2", "#d55e00"].map(paint) }, sort: null, legend: { title: null, orient: "top" } }, strokeDash: { field: "what", type: "nominal", sort: null } } : { color: { value: paint("#0072b2") } }),
    } },
  ] });
  const three = (value) => value.toFixed(3);
  const found = [["Task loss", chart([["train_loss", "training half"], ["val_loss", "validation half"]]), `Training loss ${ends("train_loss", (v) => v.toFixed(4))}; validation loss ${ends("val_loss", (v) => v.toFixed(4))}.`]];
  if (curves.expected) {
    const name = curves.of === "bitops" ? "BitOps" : curves.of;
    const lines = curves.of === "bitops" && trial.budget ? [[trial.budget, "budget"]] : [];
    found.push([`Expected ${name}`, chart([["expected", name]], { format: "~s", lines }), `Expected ${name} ${ends("expected", si)}${lines.length ? `, budget ${si(trial.budget)}` : ""}.`]);
  }
  found.push(["Entropy, nats", chart([["entropy", "entropy"]], { zero: true, lines: [[trial.most_entropy, "all alike"]] }), `Entropy ${ends("entropy", three)} of at most ${three(trial.most_entropy)}.`]);
  found.push(["Decided: largest probability", chart([["median_decided", "median"], ["least_decided", "least decided"]], { domain: [0, 1], lines: [[0.5, ""]] }), `Least decided block ${ends("least_decided", three)} (${trial.least_decided_block}); median ${ends("median_decided", three)}.`]);
  return found;
}

/** How a block's joint distribution moved: one band a candidate, the chosen one at the bottom under a line. */
function distributionSpec(trial, block, shades) {
  const epochs = trial.curves.epochs;
  const values = block.candidates.flatMap((candidate, order) => epochs.map((epoch, i) => ({
    epoch, order, name: [candidate.operation, candidate.bits].filter(Boolean).join(", "), operation: candidate.operation, shade: shades[candidate.bits] ?? 0.9, p: block.thousandths[order][i] / 1000,
  })));
  const operations = Object.keys(trial.operations);
  const x = { ...epochAxis, title: null, axis: { ...epochAxis.axis, tickCount: 4 } };
  const y = { type: "quantitative", title: null, scale: { domain: [0, 1] }, axis: { values: [0, 0.5, 1], format: "~g", grid: false } };
  return { height: 92, layer: [
    { data: { values }, mark: { type: "area", stroke: colour("card"), strokeWidth: 0.5 }, encoding: {
      x, y: { ...y, field: "p", stack: "zero" }, order: { field: "order", type: "quantitative" }, detail: { field: "name" },
      color: { field: "operation", type: "nominal", legend: null, scale: { domain: [...operations, ""], range: [...operations.map((name) => trial.operations[name]), "#8a94a0"] } },
      fillOpacity: { field: "shade", type: "quantitative", legend: null, scale: { domain: [0, 1], range: [0, 1] } },
      tooltip: [{ field: "name", title: "candidate" }, { field: "epoch" }, { field: "p", title: "probability", format: ".3f" }],
    } },
    { data: { values: values.filter((row) => row.order === 0) }, mark: { type: "line", color: colour("ink"), strokeWidth: 1.8, aria: false }, encoding: { x, y: { ...y, field: "p" } } },
  ] };
}

/** How strong the colour of every number of bits is: the more bits, the fuller. */
function shadesOf(trial) {
  const bits = [...new Set(trial.distributions.flatMap((block) => block.candidates.map((candidate) => candidate.bits)))].filter(Boolean);
  bits.sort((a, b) => (parseInt(a.replace(/\D*/, ""), 10) || 0) - (parseInt(b.replace(/\D*/, ""), 10) || 0));
  return Object.fromEntries(bits.map((name, i) => [name, bits.length > 1 ? 0.4 + (0.55 * i) / (bits.length - 1) : 0.9]));
}

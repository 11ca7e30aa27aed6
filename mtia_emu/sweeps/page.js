"use strict";
// Draws the page of a sweep from the data embedded in it. Every name in the data is a stranger's text: it goes to
// the page as text, and to the plots through `safe`.
const data = JSON.parse(document.getElementById("data").textContent);
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
let GREY, BLUE, ORANGE, RED; // of the scheme, light or dark, that is shown
const narrow = () => innerWidth < 600;
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", toImageButtonOptions: { format: "svg" } };
const byId = (id) => document.getElementById(id);
const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const column = (name) => data.rows.map((row) => row[data.columns.indexOf(name)]);
const base = (name) => data.base[data.columns.indexOf(name)];
const better = (name) => (data.larger.includes(name) ? -1 : 1);
const COUNTS = {}; // by column, what its numbers are divided by where they are drawn, and its label
const label = (name) => safe(COUNTS[name] ? COUNTS[name].label : data.labels[name] || name);
const drawn = (name, value) => (typeof value === "number" && COUNTS[name] ? value / COUNTS[name].by : value);
const drawnColumn = (name) => column(name).map((value) => drawn(name, value));
const gpuName = () => safe(data.gpu.name);
const PREFIXES = ["p", "n", "µ", "m", "", "k", "M", "G", "T"];
let chosen = -1; // a place in data.rows; -1 is the base chip

// A column of seconds, joules, watts or bytes a second is drawn in the unit that keeps its numbers short: ms, MJ.
function scaled() {
  for (const [name, unit] of Object.entries(data.units)) {
    const sizes = [...column(name), base(name), data.gpu[name]].filter((v) => typeof v === "number" && v > 0);
    const power = sizes.length ? Math.max(-4, Math.min(4, Math.floor(Math.log10(Math.max(...sizes)) / 3))) : 0;
    const whole = data.labels[name];
    COUNTS[name] = { by: 1000 ** power, label: whole.slice(0, whole.length - unit.length) + PREFIXES[power + 4] + unit };
  }
}

function layout(more) {
  const margin = narrow() ? { l: 60, r: 10, t: 110, b: 60 } : { l: 70, r: 20, t: 84, b: 60 };
  return Object.assign({ margin, hovermode: "closest", colorway: ["s1", "s2", "s3", "s4", "s5", "s6"].map(ink), font: { family: "system-ui, sans-serif", color: ink("ink"), size: narrow() ? 10 : 12 },
    legend: narrow() ? { orientation: "v", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" } : { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom" }, paper_bgcolor: ink("page"), plot_bgcolor: ink("page") }, more);
}

function axis(name, values) {
  const known = values.filter((v) => typeof v === "number" && v > 0);
  const wide = known.length && Math.max(...known) / Math.min(...known) > 30;
  return { title: { text: label(name) }, type: known.length === values.length && wide ? "log" : "-", gridcolor: ink("line"), zeroline: false, exponentformat: "SI" };
}

function hover(row, index) {
  const shown = [...data.parameters, ...data.objectives];
  const lines = shown.map((name) => `${safe(data.labels[name] || name)}: ${safe(amount(name, row[data.columns.indexOf(name)]))}`);
  return `<b>${index}</b><br>` + lines.join("<br>");
}

function format(value) {
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-3 && size < 1e6)) return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  const power = Math.max(-4, Math.min(4, Math.floor(Math.log10(size) / 3)));
  return `${Number((value / 1000 ** power).toPrecision(4))} ${PREFIXES[power + 4]}`;
}

function amount(name, value) {
  const unit = data.units[name];
  if (!unit || typeof value !== "number") return format(value);
  const power = value ? Math.max(-4, Math.min(4, Math.floor(Math.log10(Math.abs(value)) / 3))) : 0;
  return `${Number((value / 1000 ** power).toPrecision(4))} ${PREFIXES[power + 4]}${unit}`;
}

function front(xs, ys, xSign, ySign) {
  const order = xs.map((_, i) => i).filter((i) => xs[i] !== null && ys[i] !== null);
  order.sort((a, b) => xSign * (xs[a] - xs[b]) || ySign * (ys[a] - ys[b]));
  const kept = [];
  let best = Infinity;
  for (const i of order) if (ySign * ys[i] < best) { best = ySign * ys[i]; kept.push(i); }
  return kept;
}

function band(name) {
  const timed = name === "seconds" || name.endsWith(".seconds");
  return timed && data.gpu.seconds_error_share ? data.gpu.seconds_error_share : 0;
}

function tradeOff() {
  const x = byId("x").value, y = byId("y").value, xs = drawnColumn(x), ys = drawnColumn(y);
  const baseX = drawn(x, base(x)), baseY = drawn(y, base(y));
  const kept = front(xs, ys, better(x), better(y));
  const text = data.rows.map((row, i) => hover(row, data.points[i]));
  const one = (name, px, py, marker, more) => Object.assign({ name, x: [px], y: [py], mode: "markers", marker, hovertemplate: `${name}<extra></extra>` }, more);
  const colour = byId("colour").value;
  const marker = colour === "" ? { color: GREY, size: 7 } : { color: drawnColumn(colour), size: 7, colorscale: "Viridis", showscale: true, colorbar: { title: { text: label(colour) } } };
  const traces = [
    { name: "points", x: xs, y: ys, text, mode: "markers", marker, hovertemplate: "%{text}<extra></extra>" },
    { name: `front (${kept.length})`, x: kept.map((i) => xs[i]), y: kept.map((i) => ys[i]), text: kept.map((i) => text[i]), customdata: kept,
      mode: "lines+markers", line: { color: BLUE, width: 1, shape: "hv" }, marker: { color: BLUE, size: 9 }, hovertemplate: "%{text}<extra></extra>" },
    one(safe(data.chip), baseX, baseY, { color: ORANGE, size: 16, symbol: "star" }, { meta: "base" }),
  ];
  const gx = drawn(x, data.gpu[x]), gy = drawn(y, data.gpu[y]);
  if (typeof gx === "number" && typeof gy === "number") {
    const bars = (name, value) => ({ type: "data", array: [value * band(name)], visible: band(name) > 0, color: RED });
    traces.push(one(gpuName(), gx, gy, { color: RED, size: 11, symbol: "diamond" }, { error_x: bars(x, gx), error_y: bars(y, gy) }));
  }
  const all = (values, b, g) => [...values, b, ...(typeof g === "number" ? [g] : [])];
  Plotly.react("front", traces, layout({ xaxis: axis(x, all(xs, baseX, gx)), yaxis: axis(y, all(ys, baseY, gy)) }), CONFIG);
}

function choose(event) {
  const point = event.points[0];
  if (point.data.meta === "base") chosen = -1;
  else if (point.data.customdata) chosen = point.data.customdata[point.pointNumber];
  else if (point.curveNumber === 0) chosen = point.pointNumber;
  else return;
  details();
}

function parallel() {
  const names = [...data.varied, ...data.objectives];
  const dimensions = names.map((name) => {
    const values = drawnColumn(name);
    if (values.every((v) => typeof v === "number")) return { label: label(name), values, tickformat: COUNTS[name] ? ".3~g" : ".3~s" };
    const ranked = [...new Set(values.map(String))].sort();
    return { label: label(name), values: values.map((v) => ranked.indexOf(String(v))), tickvals: ranked.map((_, i) => i), ticktext: ranked.map(safe) };
  });
  const first = drawnColumn(data.objectives[0]);
  const trace = { type: "parcoords", dimensions, line: { color: first, colorscale: "Viridis", showscale: true, colorbar: { title: { text: label(data.objectives[0]) } } } };
  Plotly.react("parallel", [trace], layout({ margin: { l: 80, r: 60, t: 60, b: 30 } }), CONFIG);
}

function sensitivity() {
  const traces = data.objectives.map((name) => ({ type: "bar", orientation: "h", name: label(name), y: data.varied.map(safe), x: data.varied.map((key) => data.sensitivity[name][key]),
    marker: { opacity: data.varied.map((key) => (data.sensitivity[name][key] > data.chance[name][key] ? 1 : 0.3)) } }));
  Plotly.react("sensitivity", traces, layout({ barmode: "group", yaxis: { autorange: "reversed", automargin: true },
    xaxis: { range: [0, 1], title: { text: "share of the variance explained" }, gridcolor: ink("line") } }), CONFIG);
}

const rowOf = () => (chosen < 0 ? data.base : data.rows[chosen]);
const metric = (row, name) => row[data.columns.indexOf(name)];
const nameOf = (index) => (index < 0 ? data.chip : `point ${data.points[index]}`);

function details() {
  byId("chosen").textContent = nameOf(chosen);
  const body = byId("values");
  body.replaceChildren();
  data.columns.forEach((name, i) => {
    if (!byId("all").checked && !data.parameters.includes(name) && !data.objectives.includes(name)) return;
    const line = body.insertRow();
    const whole = data.labels[name] || name, unit = data.units[name];
    line.insertCell().textContent = unit ? whole.slice(0, -unit.length - 2) : whole;
    for (const value of [rowOf()[i], data.base[i]]) {
      const cell = line.insertCell();
      cell.className = "number";
      cell.textContent = value === null ? "" : amount(name, value);
    }
  });
  again();
  roofline();
  energy();
}

function again() {
  const parts = data.again[byId("model").value];
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'"'"'`)}'`);
  const sets = chosen < 0 ? [] : data.parameters.map((name) => `--set ${quoted(`${name}=${metric(rowOf(), name)}`)}`);
  byId("again").textContent = parts ? [parts[0], ...sets].join(" ") + parts[1] : "mtia-emu report STORE --commands";
}

function roofline() {
  const model = byId("model").value, row = rowOf();
  const groups = ((chosen < 0 ? data.base_layers : data.layers[chosen]) || {})[model] || [];
  const span = (g) => (g.length > 9 ? g[9] : g[4]); // an older store has none
  const spots = groups.filter((g) => g[5] > 0 && g[6] > 0 && span(g) > 0).map((g) => ({ x: g[5] / g[6], y: g[5] / span(g), g }));
  const total = groups.reduce((sum, g) => sum + g[4], 0) || 1;
  const peak = metric(row, `${model}.peak_macs_per_s`), dram = metric(row, "dram_bytes_per_s"), ridge = peak / dram;
  const low = Math.min(ridge, ...spots.map((s) => s.x)) / 4, high = Math.max(ridge, ...spots.map((s) => s.x)) * 4;
  const bounds = [...new Set(spots.map((s) => s.g[2]))].sort();
  const traces = [
    { name: "DRAM", x: [low, ridge], y: [low * dram, peak], mode: "lines", line: { color: BLUE }, hoverinfo: "skip" },
    { name: "peak", x: [ridge, high], y: [peak, peak], mode: "lines", line: { color: ink("ink") }, hoverinfo: "skip" },
    ...bounds.map((bound) => {
      const mine = spots.filter((s) => s.g[2] === bound);
      return { name: `bound by ${safe(bound)}`, x: mine.map((s) => s.x), y: mine.map((s) => s.y), mode: "markers",
        marker: { size: mine.map((s) => 7 + 38 * Math.sqrt(s.g[4] / total)), opacity: 0.65 },
        text: mine.map((s) => `${safe(s.g[0])} (${safe(s.g[1])}) x ${s.g[3]}: ${format((100 * s.g[4]) / total)} % of the time`), hovertemplate: "%{text}<extra></extra>" };
    }),
  ];
  const g = (key) => data.gpu[`${model}.${key}`];
  if (g("macs") && g("dram_bytes") && g("seconds")) {
    const rate = g("macs") / g("seconds");
    traces.push({ name: `${gpuName()}, whole model`, x: [g("macs") / g("dram_bytes")], y: [rate], mode: "markers", marker: { color: RED, size: 11, symbol: "diamond" },
      error_y: { type: "data", array: [rate * band("seconds")], visible: band("seconds") > 0, color: RED } });
  }
  const log = (text) => ({ type: "log", title: { text }, dtick: 1, gridcolor: ink("line"), exponentformat: "SI" });
  Plotly.react("roofline", traces, layout({ xaxis: log("arithmetic intensity, MAC/B of DRAM"), yaxis: log("achieved rate, MAC/s") }), CONFIG);
}

function energy() {
  const model = byId("model").value;
  const places = [-1, ...data.bars, ...(chosen >= 0 && !data.bars.includes(chosen) ? [chosen] : [])];
  const rows = places.map((i) => (i < 0 ? data.base : data.rows[i]));
  const names = places.map((i) => safe(nameOf(i)) + (i === chosen && i >= 0 ? " *" : ""));
  const traces = Object.entries(data.parts).map(([part, color]) => ({ type: "bar", orientation: "h", name: part, y: names, x: rows.map((row) => metric(row, `${model}.joules_${part}`) || 0), marker: { color } }));
  const whole = data.gpu[`${model}.joules`];
  if (whole) traces.push({ type: "bar", orientation: "h", name: gpuName(), y: [gpuName()], x: [whole], marker: { color: RED, opacity: 0.55 } });
  Plotly.react("energy", traces, layout({ barmode: "stack", yaxis: { autorange: "reversed", type: "category", automargin: true },
    xaxis: { title: { text: "energy of a run, J" }, exponentformat: "SI", gridcolor: ink("line") } }), CONFIG);
}

function fill(id, names, wanted) {
  for (const name of names) {
    const option = document.createElement("option");
    option.value = name;
    option.textContent = name === "" ? "(none)" : data.labels[name] || name;
    option.selected = name === wanted;
    byId(id).append(option);
  }
}

fill("x", data.numeric, data.objectives[0]);
fill("y", data.numeric, data.objectives[1] || "area_mm2");
fill("colour", ["", ...data.numeric], "");
fill("model", data.models, data.models[0]);
for (const id of ["x", "y", "colour"]) byId(id).addEventListener("change", tradeOff);
byId("model").addEventListener("change", () => { again(); roofline(); energy(); });
byId("all").addEventListener("change", details);
function draw() {
  [GREY, BLUE, ORANGE, RED] = ["grey", "mark", "hot", "odd"].map(ink);
  scaled();
  tradeOff();
  parallel();
  sensitivity();
  details();
}

draw();
byId("front").on("plotly_click", choose);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.body.dataset.ready = "yes";

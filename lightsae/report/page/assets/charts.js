// Charts as SVG, drawn anew when their width changes.

const HEIGHT = 230;
const EDGE = { left: 46, right: 10, top: 24, bottom: 36 };

function niceTicks(low, high, about, least = 0) {
  const step0 = Math.max((high - low) / about, least);
  const power = 10 ** Math.floor(Math.log10(step0));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= step0 * 0.999);
  const ticks = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) ticks.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return ticks;
}

function logTicks(low, high, about) {
  const ticks = [];
  for (let e = Math.floor(low); e <= Math.ceil(high); e++) {
    for (const f of high - low < 2.2 ? [1, 2, 5] : [1]) {
      const v = e + Math.log10(f);
      if (v >= low - 1e-6 && v <= high + 1e-6) ticks.push(v);
    }
  }
  const every = Math.ceil(ticks.length / about);
  return ticks.filter((_, i) => i % every === 0);
}

// As many digits as it takes to tell two ticks apart.
function axisText(value, log, apart) {
  const v = log ? 10 ** value : value;
  const size = Math.abs(v);
  if (!log && size >= 1e-3 && size < 1e4 && apart < 1) {
    return v.toFixed(Math.min(6, Math.ceil(-Math.log10(apart) - 1e-9))).replace(/^(-?)0\./, "$1.").replace("-", "−");
  }
  if (size >= 1e4) return v >= 1e6 ? `${+(v / 1e6).toPrecision(3)}M` : `${+(v / 1e3).toPrecision(3)}k`;
  if (size !== 0 && size < 1e-3) return v.toExponential(0).replace("-", "−");
  return String(+v.toPrecision(3)).replace(/^(-?)0\./, "$1.").replace("-", "−");
}

function scaleOf(values, log, size, from, pad) {
  let low = Infinity;
  let high = -Infinity;
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (!(low < high)) {
    const room = log ? 0.5 : Math.abs(low) * 0.1 || 1;
    low -= room;
    high += room;
  }
  const extra = (high - low) * pad;
  low -= extra;
  high += extra;
  const place = (v) => from + ((v - low) / (high - low)) * size;
  return { low, high, place };
}

const usable = (v, log) => v !== null && Number.isFinite(v) && (!log || v > 0);

// The points of a series as the axes have them, or empty.
function pointsOf(chart, series) {
  const points = [];
  if (chart.kind === "steps") {
    for (let i = 0; i < series.y.length; i++) points.push([series.x[i], series.x[i + 1], series.y[i]]);
    return points;
  }
  for (let i = 0; i < series.x.length; i++) {
    if (!usable(series.x[i], chart.log_x) || !usable(series.y[i], chart.log_y)) continue;
    points.push([chart.log_x ? Math.log10(series.x[i]) : series.x[i], chart.log_y ? Math.log10(series.y[i]) : series.y[i], i]);
  }
  return points;
}

// What the legend says: seeds of one setting share it.
const entryOf = (series) => series.setting || series.name;

// Of each entry its series.
function entriesOf(chart) {
  const entries = new Map();
  for (const series of chart.series) entries.set(entryOf(series), [...(entries.get(entryOf(series)) ?? []), series]);
  return entries;
}

function drawChart(chart, svg) {
  const width = Math.max(240, svg.clientWidth);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const drawn = chart.series.map((series) => ({ series, points: pointsOf(chart, series) }));
  const steps = chart.kind === "steps";
  const every = drawn.flatMap(({ points }) => points);
  if (!every.length) return null;
  const xs = steps ? every.flatMap(([a, b]) => [a, b]) : every.map(([x]) => x);
  const ys = steps ? [0, ...every.map((p) => p[2])] : every.map((p) => p[1]);
  const padX = steps || chart.kind === "line" ? 0 : 0.05;
  const x = scaleOf(xs, chart.log_x, width - EDGE.left - EDGE.right, EDGE.left, padX);
  const y = scaleOf(ys, chart.log_y, -(HEIGHT - EDGE.top - EDGE.bottom), HEIGHT - EDGE.bottom, steps ? 0 : 0.05);
  drawAxes(chart, svg, width, x, y);
  for (const mark of chart.marks ?? []) {
    const at = x.place(chart.log_x ? Math.log10(mark) : mark);
    if (at >= EDGE.left && at <= width - EDGE.right) svg.append(svgElement("line", { class: "mark", x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
  }
  const entries = entriesOf(chart);
  for (const { series, points } of drawn) drawSeries(chart, svg, series, points, x, y, entries.get(entryOf(series)).length > 1);
  return { drawn, x, y, width };
}

function drawAxes(chart, svg, width, x, y) {
  const bottom = HEIGHT - EDGE.bottom;
  const ticks = (scale, log, about, least) => (log ? logTicks(scale.low, scale.high, about) : niceTicks(scale.low, scale.high, about, least));
  const apart = (found) => (found.length > 1 ? found[1] - found[0] : 1);
  // A histogram counts: there are no parts of one.
  const upwards = ticks(y, chart.log_y, 5, chart.kind === "steps" ? 1 : 0);
  for (const v of upwards) {
    const at = y.place(v);
    svg.append(svgElement("line", { class: "axis", x1: EDGE.left, x2: width - EDGE.right, y1: at, y2: at }));
    svg.append(svgElement("text", { x: EDGE.left - 6, y: at + 4, "text-anchor": "end" }, axisText(v, chart.log_y, apart(upwards))));
  }
  const whole = chart.series.every((series) => series.x.every(Number.isInteger));
  const across = ticks(x, chart.log_x, width < 340 ? 4 : 6, whole ? 1 : 0);
  for (const v of across) {
    svg.append(svgElement("text", { x: x.place(v), y: bottom + 15, "text-anchor": "middle" }, axisText(v, chart.log_x, apart(across))));
  }
  svg.append(svgElement("text", { x: 0, y: 11 }, chart.y_label));
  svg.append(svgElement("text", { x: (EDGE.left + width - EDGE.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, chart.x_label));
}

function drawSeries(chart, svg, series, points, x, y, thin) {
  const colour = `var(--c${series.colour % 6})`;
  const styled = (made, fill, stroke) => {
    made.style.fill = fill;
    made.style.stroke = stroke;
    svg.append(made);
    return made;
  };
  if (chart.kind === "steps") {
    if (!points.length) return;
    let path = `M${x.place(points[0][0])} ${y.place(0)}`;
    for (const [a, b, height] of points) path += `L${x.place(a)} ${y.place(height)}H${x.place(b)}`;
    path += `V${y.place(0)}`;
    if (!thin) styled(svgElement("path", { d: `${path}Z`, "fill-opacity": 0.1 }), colour, "none");
    styled(svgElement("path", { d: path, "stroke-width": thin ? 0.8 : 1.5 }), "none", colour);
    return;
  }
  if (chart.kind === "points") {
    for (const [px, py] of points) styled(svgElement("circle", { cx: x.place(px), cy: y.place(py), r: 2, "fill-opacity": 0.5 }), colour, "none");
    return;
  }
  const path = points.map(([px, py]) => `${x.place(px)} ${y.place(py)}`).join("L");
  if (points.length > 1) styled(svgElement("path", { d: `M${path}`, "stroke-width": thin ? 0.9 : 1.8, "stroke-linejoin": "round" }), "none", colour);
  if (chart.kind === "path" || points.length < 20) {
    for (const [px, py, i] of points) {
      styled(svgElement("circle", { cx: x.place(px), cy: y.place(py), r: thin ? 1.5 : 3 }), colour, "none");
      const text = series.labels[i];
      const right = x.place(px) > svg.clientWidth * 0.7;
      if (text) styled(svgElement("text", { x: x.place(px) + (right ? -6 : 6), y: y.place(py) - 6, "text-anchor": right ? "end" : "start" }, text), colour, "none");
    }
  }
}

// What each entry has at a place, the mean of the nearest points of its series.
function valuesAt(chart, state, at) {
  const found = new Map();
  let heading = "";
  let nearest = Infinity;
  for (const { series, points } of state.drawn) {
    let best = null;
    let distance = Infinity;
    for (const point of points) {
      const d = chart.kind === "steps" ? (at >= point[0] && at < point[1] ? 0 : Infinity) : Math.abs(point[0] - at);
      if (d < distance) [best, distance] = [point, d];
    }
    if (!best) continue;
    const value = chart.kind === "steps" ? best[2] : chart.log_y ? 10 ** best[1] : best[1];
    const entry = found.get(entryOf(series)) ?? { series, values: [] };
    entry.values.push(value);
    found.set(entryOf(series), entry);
    if (distance < nearest) {
      nearest = distance;
      const from = chart.log_x ? 10 ** best[0] : best[0];
      heading = chart.kind === "steps" ? `${short(best[0])} to ${short(best[1])}` : `${chart.x_label} ${short(from)}`;
    }
  }
  const lines = [...found.values()].map(({ series, values }) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return [series, `${short(mean)}${values.length > 1 ? ` (mean of ${values.length})` : ""}`];
  });
  return { heading, lines };
}

function attachTip(chart, figure, svg, state) {
  const tip = element("div", { class: "tip", hidden: true });
  figure.append(tip);
  svg.addEventListener("pointermove", (event) => {
    if (!state.now) return;
    const box = svg.getBoundingClientRect();
    const { x, width } = state.now;
    const at = x.low + ((event.clientX - box.left - EDGE.left) / (width - EDGE.left - EDGE.right)) * (x.high - x.low);
    const { heading, lines } = valuesAt(chart, state.now, at);
    tip.replaceChildren(element("div", { class: "dim", text: heading }));
    for (const [series, text] of lines) {
      const line = element("div", { text: `${chart.series.length > 1 ? `${entryOf(series)}: ` : ""}${text}` });
      line.style.color = `var(--c${series.colour % 6})`;
      tip.append(line);
    }
    tip.hidden = !lines.length;
    const right = event.clientX - box.left > width / 2;
    tip.style.left = right ? "" : `${event.clientX - box.left + 14}px`;
    tip.style.right = right ? `${box.right - event.clientX + 14}px` : "";
    tip.style.top = `${svg.offsetTop + 8}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}

function numbersOf(chart) {
  const body = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${chart.title || chart.y_label}` });
  const details = element("details", {}, element("summary", { text: "Numbers" }), body);
  details.addEventListener("toggle", () => {
    if (!details.open || body.firstChild) return;
    const table = element("table", {}, element("tr", {}, element("th", { text: "run" }), element("th", { text: chart.x_label }), element("th", { text: chart.y_label })));
    for (const series of chart.series) {
      series.y.forEach((value, i) => table.append(element("tr", {}, element("td", { text: series.name }), element("td", { text: short(series.x[i]) }), element("td", { text: short(value) }))));
    }
    body.append(table);
  });
  return details;
}

function chartFigure(chart) {
  const entries = entriesOf(chart);
  const names = [...entries.keys()].join(", ");
  const svg = svgElement("svg", { role: "img", "aria-label": `${chart.title || chart.name}: ${chart.y_label} against ${chart.x_label} of ${names}` });
  const legend = element("ul", { class: "legend", hidden: !chart.title });
  if (chart.series.length > 1) {
    for (const [entry, [series]] of entries) {
      const item = element("li", { text: entry });
      item.style.setProperty("--colour", `var(--c${series.colour % 6})`);
      legend.append(item);
    }
  }
  const figure = element("figure", { class: "chart", "data-chart": chart.name },
    chart.title ? element("figcaption", { text: chart.title }) : "", legend, svg,
    element("p", { class: "under", text: chart.note }), numbersOf(chart));
  figure.style.position = "relative";
  const state = { now: null };
  attachTip(chart, figure, svg, state);
  let before = 0;
  new ResizeObserver(() => {
    if (svg.clientWidth !== before) {
      before = svg.clientWidth;
      state.now = drawChart(chart, svg);
    }
  }).observe(svg);
  return figure;
}

function showCharts() {
  const place = document.getElementById("charts");
  if (!place) return;
  let group = null;
  let grid = null;
  for (const chart of contents.charts) {
    if (chart.group !== group) {
      group = chart.group;
      grid = element("div", { class: "grid" });
      place.append(element("h3", { text: group }), grid);
    }
    grid.append(chartFigure(chart));
  }
}

// One latent, in a dialog.

const dialog = document.getElementById("latent");
const shown = { run: 0, latent: -1, maps: true };

function showLatent(run, latent) {
  shown.run = run;
  shown.latent = latent;
  const before = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  dialog.replaceChildren(headOf(run, latent), bodyOf(run, latent));
  dialog.scrollTop = 0;
  if (dialog.open) focusWithin(before);
  else dialog.showModal();
  markOpen();
}

// What had the focus is gone with the latent before: the same button, or else the dialog, so that keys still reach it.
function focusWithin(label) {
  const same = [...dialog.querySelectorAll(".head button")].find((button) => button.getAttribute("aria-label") === label);
  (same && !same.disabled ? same : dialog).focus();
}

function markOpen() {
  const isOpen = (row) => dialog.open && shown.run === view.run && Number(row.dataset.latent) === shown.latent;
  pool.forEach(({ firstChild: row }) => row.classList.toggle("open", isOpen(row)));
}

function goTo(run, latent) {
  history.replaceState(null, "", `#latent-${run}-${latent}`);
  showLatent(run, latent);
}

function step(by) {
  const place = view.run === shown.run ? view.order.indexOf(shown.latent) : -1;
  const next = place + by;
  if (place >= 0 && next >= 0 && next < view.order.length) goTo(shown.run, view.order[next]);
}

function closeLatent() {
  if (dialog.open) dialog.close();
}

// After Escape, the button, or a click beside it.
function afterClosing() {
  history.replaceState(null, "", "#latents");
  const place = view.run === shown.run ? view.order.indexOf(shown.latent) : -1;
  markOpen();
  if (place >= 0) focusRow(place);
}

function headOf(run, latent) {
  const button = (text, label, act, off) => {
    const made = element("button", { type: "button", class: "icon", "aria-label": label, title: label, text });
    made.addEventListener("click", act);
    made.disabled = off;
    return made;
  };
  const place = view.run === run ? view.order.indexOf(latent) : -1;
  const name = nameOf(run, latent);
  const title = element("h2", { id: "latent-title", text: name ? `${name} · #${latent}` : `Latent ${latent}` });
  if (runs.length > 1) title.append(element("span", { class: "dim", text: ` in ${runs[run].name}` }));
  return element("div", { class: "head" }, title,
    button("←", "Previous latent", () => step(-1), place <= 0),
    button("→", "Next latent", () => step(1), place < 0 || place >= view.order.length - 1),
    button("✕", "Close", closeLatent, false));
}

// Its buttons stay the same ones: the press that ended the naming may be on one of them.
function renewHead(run, latent) {
  const made = headOf(run, latent);
  document.getElementById("latent-title").replaceWith(made.querySelector("h2"));
  const states = [...made.querySelectorAll("button")].map((button) => button.disabled);
  dialog.querySelectorAll(".head button").forEach((button, i) => { button.disabled = states[i]; });
}

function bodyOf(run, latent) {
  const body = element("div", { class: "body" }, statsOf(run, latent), namingOf(run, latent));
  body.append(...imagesOf(run, latent));
  const effects = effectsOf(run, latent);
  if (effects) body.append(effects);
  const columns = element("div", { class: "columns" });
  for (const part of [histogramOf(run, latent), classesOf(run, latent),
    nearOf(run, latent, "near", "Nearest by decoder", (x) => `cosine ${score(x)}`),
    nearOf(run, latent, "together", "Fires together with", (x) => `overlap ${percent(x)}`)]) {
    if (part) columns.append(part);
  }
  body.append(columns);
  const others = othersOf(run, latent);
  if (others) body.append(others);
  return body;
}

function statsOf(run, latent) {
  const stats = element("dl", { class: "stats" });
  const add = (title, text) => stats.append(element("div", {}, element("dt", { text: title, title }), element("dd", { text })));
  add("status", statusOf(run, latent));
  for (const { key, title } of runs[run].scores) {
    const value = arrayOf(run, key)[latent];
    if (key === "firings") add("fires on rows", `${percent(shareOfRows(run, latent))}`);
    else add(title, /^(ms|purity)/.test(key) ? score(value) : short(value));
  }
  const largest = arrayOf(run, "largest");
  if (largest) add("largest activation", largest[latent] > 1e-30 ? short(largest[latent]) : "–");
  return stats;
}

function namingOf(run, latent) {
  const input = element("input", { type: "text", placeholder: "Name this latent", "aria-label": "Name of this latent", maxlength: 80 });
  input.value = ownName(run, latent);
  if (givenName(run, latent)) input.placeholder = givenName(run, latent);
  const save = element("button", { type: "button", text: "Save all names", title: "Download the names of all latents as JSON" });
  input.addEventListener("change", () => {
    setName(run, latent, input.value.trim());
    refreshOrder();
    renewHead(run, latent);
  });
  save.addEventListener("click", saveNames);
  return element("div", { class: "naming" }, input, save, wordsOf(run, latent));
}

// The name that the run gives, how sure it is, and what comes next.
function wordsOf(run, latent) {
  const [first, ...rest] = candidatesOf(run, latent);
  if (!first) return null;
  const next = rest.length ? `; next ${rest.map(({ word, score: value }) => `${word} ${score(value)}`).join(", ")}` : "";
  return element("span", { class: "dim words", text: `${first.word}: ${runs[run].names.measure} ${score(first.score)}${next}` });
}

function imagesOf(run, latent) {
  const images = arrayOf(run, "images");
  if (!images) return [];
  const strengths = arrayOf(run, "strengths");
  const largest = arrayOf(run, "largest")[latent];
  const [top, middle, bottom] = runs[run].places;
  const parts = [];
  const group = (title, begin, count) => {
    const tiles = element("div", { class: "tiles" });
    for (let i = begin; i < begin + count; i++) {
      const at = latent * images.width + i;
      if (images[at]) tiles.append(exampleOf(run, images[at] - 1, at, (strengths[at] / 65535) * largest));
    }
    if (!tiles.firstChild) return;
    const line = element("div", { class: "title-line" }, element("h3", { text: title }));
    if (!parts.length && runs[run].has_heat_maps) line.append(mapsSwitch());
    parts.push(element("section", {}, line, tiles));
  };
  group("Strongest", 0, top);
  group("Middle", top, middle);
  group("Weakest", top + middle, bottom);
  return parts.length ? parts : [element("p", { class: "dim", text: "It fires on no image of this split." })];
}

function exampleOf(run, image, at, strength) {
  const picture = tile(run, image);
  if (runs[run].has_heat_maps && shown.maps) {
    const map = heatMap(run, at);
    if (map) picture.append(map);
  }
  const name = className(run, arrayOf(null, "label")[image]);
  return element("figure", {}, picture, element("figcaption", {}, element("span", { text: short(strength), title: "activation" }), element("span", { text: name || `sample ${arrayOf(null, "sample")[image]}`, title: name })));
}

function mapsSwitch() {
  const box = element("input", { type: "checkbox" });
  box.checked = shown.maps;
  box.addEventListener("change", () => {
    shown.maps = box.checked;
    showLatent(shown.run, shown.latent);
    dialog.querySelector('input[type="checkbox"]')?.focus();
  });
  return element("label", {}, box, " heat maps");
}

// Where in the image the latent fires: the stronger, the warmer; the rest is dimmed.
function heatMap(run, at) {
  const begins = arrayOf(run, "map_begins");
  if (!begins || begins[at] === begins[at + 1]) return null;
  const [height, width] = runs[run].grid;
  const canvas = element("canvas", { width, height, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) pixels.data.set([12, 14, 20, 115], i * 4);
  const patches = arrayOf(run, "map_patches");
  const values = arrayOf(run, "map_values");
  for (let i = begins[at]; i < begins[at + 1]; i++) {
    pixels.data.set([255, 96 + Math.round(values[i] * 0.5), 24, 40 + Math.round(values[i] * 0.5)], patches[i] * 4);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function histogramOf(run, latent) {
  const counts = arrayOf(run, "histogram");
  const largest = arrayOf(run, "largest");
  if (!counts || !largest || !arrayOf(run, "fires_on")[latent]) return null;
  const bins = counts.width;
  const y = Array.from(counts.subarray(latent * bins, (latent + 1) * bins));
  const x = Array.from({ length: bins + 1 }, (_, i) => (largest[latent] * i) / bins);
  const chart = { name: "activations", title: "", x_label: "activation", y_label: "images", kind: "steps", log_x: false, log_y: false, note: `It fires on ${counted(arrayOf(run, "fires_on")[latent], "image", "images")}${runs[run].looked_at < runs[run].images ? " of those looked at" : ""}.`, series: [{ name: "images", x, y, colour: 1, labels: [] }] };
  return element("section", {}, element("h3", { text: "Activations" }), chartFigure(chart));
}

function classesOf(run, latent) {
  const classes = arrayOf(run, "classes");
  if (!classes) return null;
  const counts = arrayOf(run, "class_counts");
  const total = arrayOf(run, "class_total")[latent];
  if (!total) return null;
  const bars = element("div", { class: "bars" });
  let told = 0;
  const add = (name, count) => bars.append(element("span", { class: "name", text: name, title: name }), meter(count / total), element("span", { text: `${percent(count / total)} · ${count.toLocaleString("en")}` }));
  for (let i = 0; i < classes.width; i++) {
    const at = latent * classes.width + i;
    if (classes[at] < 0 || classes[at] >= runs[run].classes.length) continue;
    add(className(run, classes[at]), counts[at]);
    told += counts[at];
  }
  if (told < total) add("others", total - told);
  return element("section", {}, element("h3", { text: "Classes of these images" }), bars);
}

function nearOf(run, latent, name, title, tell) {
  const near = arrayOf(run, name);
  if (!near) return null;
  const likeness = arrayOf(run, `${name}_likeness`);
  const items = element("ul", { class: "near" });
  for (let i = 0; i < near.width; i++) {
    const at = latent * near.width + i;
    // Where some are missing, arrays are signed; -1 stands for none.
    if (near[at] < 0 || near[at] >= runs[run].d_sae || Number.isNaN(likeness[at])) continue;
    items.append(element("li", {}, linkTo(run, near[at], `#${near[at]}`, tell(likeness[at]), 7)));
  }
  if (!items.firstChild) return null;
  return element("section", {}, element("h3", { text: title }), items);
}

function linkTo(run, latent, title, text, most) {
  const link = element("a", { href: `#latent-${run}-${latent}`, "aria-label": `${describe(run, latent)}, ${text}` },
    element("span", {}, element("b", { text: title }), element("span", { class: "dim", text })), stripOf(run, latent, most));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    goTo(run, latent);
  });
  return link;
}

function othersOf(run, latent) {
  const pairs = contents.pairs.filter((pair) => pair.from === run);
  if (!pairs.length) return null;
  const box = element("div", { class: "others" });
  for (const { to, paired } of pairs) {
    const nearest = arrayOf(run, `to/${to}`)[latent];
    const cosine = arrayOf(run, `to/${to}/cosine`)[latent];
    const section = element("section", {}, element("h4", { text: runs[to].name }));
    const add = (partner, text) => {
      const change = scoreOf(run, latent) - scoreOf(to, partner, mainEmbedding(run));
      const ms = mainEmbedding(run) === null ? "" : `, MS ${score(scoreOf(to, partner, mainEmbedding(run)))}${Number.isNaN(change) ? "" : ` (${signed(-change)})`}`;
      const line = linkTo(to, partner, `#${partner}`, `${text}${ms}`, 9);
      section.append(element("div", { class: "near" }, line));
    };
    if (paired) add(latent, `same index, cosine ${score(arrayOf(run, `to/${to}/paired`)[latent])}`);
    if (!paired || nearest !== latent) add(nearest, `nearest, cosine ${score(cosine)}`);
    box.append(section);
  }
  return element("section", {}, element("h3", { text: "The same latent in other runs" }), box);
}

function openFromAddress() {
  const found = /^#latent-(\d+)-(\d+)$/.exec(location.hash);
  if (!found) {
    closeLatent();
    return;
  }
  const [run, latent] = found.slice(1).map(Number);
  if (run < runs.length && latent < runs[run].d_sae) showLatent(run, latent);
}

function watchDialog() {
  dialog.addEventListener("close", afterClosing);
  dialog.addEventListener("click", (event) => {
    const box = dialog.getBoundingClientRect();
    if (event.target === dialog && event.clientX < box.left) closeLatent();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  addEventListener("hashchange", openFromAddress);
}

// The list of latents: searched, filtered, sorted, and drawn where it is looked at.

const view = { run: 0, sort: "", reversed: false, status: "all", support: 0, cls: "", text: "", order: [], seed: 1 };
const list = document.getElementById("list");
const pool = new Map();
const OVERSCAN = 4;

// The embedding that MS is told in: the one sorted by, or else the first.
function mainEmbedding(run) {
  const asked = view.sort.startsWith("ms/") ? view.sort.slice(3) : null;
  if (asked !== null && arrayOf(run, `ms/${asked}`)) return asked;
  return runs[run].embeddings.find((name) => arrayOf(run, `ms/${name}`)) ?? null;
}

function scoreOf(run, latent, name = mainEmbedding(run)) {
  const scores = name === null ? null : arrayOf(run, `ms/${name}`);
  return scores ? scores[latent] : NaN;
}

function statusOf(run, latent) {
  const firings = arrayOf(run, "firings");
  if (firings && firings[latent] === 0) return "dead";
  if (mainEmbedding(run) === null) return "scored";
  return Number.isNaN(scoreOf(run, latent)) ? "undefined" : "scored";
}

function mainClass(run, latent) {
  const found = arrayOf(run, "main_class");
  if (found) return found[latent];
  const classes = arrayOf(run, "classes");
  return classes ? classes[latent * classes.width] : -1;
}

function shareOfRows(run, latent) {
  const firings = arrayOf(run, "firings");
  return firings && runs[run].rows ? firings[latent] / runs[run].rows : NaN;
}

// The latent of another run that belongs to one: of equal index, or of the nearest decoder row.
function partnerOf(run, other, latent) {
  const pair = contents.pairs.find((each) => each.from === run && each.to === other);
  if (!pair) return null;
  return pair.paired ? latent : arrayOf(run, `to/${other}`)[latent];
}

function changeAgainst(run, other, latent) {
  const partner = partnerOf(run, other, latent);
  return partner === null ? NaN : scoreOf(run, latent) - scoreOf(other, partner, mainEmbedding(run));
}

function sortsOf(run) {
  const sorts = runs[run].scores.map(({ key, title }) => ({ key, title, value: (latent) => arrayOf(run, key)[latent] }));
  for (const pair of contents.pairs) {
    if (pair.from !== run || mainEmbedding(run) === null) continue;
    sorts.push({ key: `change/${pair.to}`, title: `change against ${runs[pair.to].name}`, value: (latent) => changeAgainst(run, pair.to, latent) });
  }
  const named = arrayOf(run, "names/scores");
  if (named) sorts.push({ key: "name", title: "name, surest", value: (latent) => named[latent * named.width] });
  sorts.push({ key: "number", title: "number", value: (latent) => -latent });
  sorts.push({ key: "random", title: "random", value: (latent) => scrambled(latent, view.seed) });
  return sorts;
}

// A number that looks random, the same each time.
function scrambled(latent, seed) {
  let h = Math.imul(latent + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

function matches(run, latent, text) {
  if (!text) return true;
  const number = text.startsWith("#") ? text.slice(1) : text;
  if (/^\d+$/.test(number)) {
    if (String(latent) === number || (!text.startsWith("#") && String(latent).startsWith(number))) return true;
  }
  if (nameOf(run, latent).toLowerCase().includes(text)) return true;
  return className(run, mainClass(run, latent)).toLowerCase().includes(text);
}

// How many images a latent fires on, as far as it is known.
function supportOf(run, latent) {
  const known = arrayOf(run, "fires_on") ?? arrayOf(run, "firings");
  return known ? known[latent] : Infinity;
}

function refreshOrder() {
  const { run } = view;
  const text = view.text.trim().toLowerCase();
  const found = [];
  let few = 0;
  // Who asks for a number gets it.
  const support = /^#?\d+$/.test(text) || ["dead", "undefined", "named"].includes(view.status) ? 0 : view.support;
  for (let latent = 0; latent < runs[run].d_sae; latent++) {
    if (view.status === "named" ? !nameOf(run, latent) : view.status !== "all" && statusOf(run, latent) !== view.status) continue;
    if (view.cls !== "" && mainClass(run, latent) !== Number(view.cls)) continue;
    if (!matches(run, latent, text)) continue;
    // Rare or not: what the reader named, and whose name is searched for.
    const wanted = text ? nameOf(run, latent).toLowerCase().includes(text) : ownName(run, latent);
    if (supportOf(run, latent) < support && !wanted) few += 1;
    else found.push(latent);
  }
  const sort = sortsOf(run).find((each) => each.key === view.sort) ?? sortsOf(run)[0];
  const values = new Map(found.map((latent) => [latent, sort.value(latent)]));
  const sign = view.reversed ? -1 : 1;
  found.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    const [no, none] = [Number.isNaN(x), Number.isNaN(y)];
    if (no || none) return no - none || a - b;
    return sign * (y - x) || a - b;
  });
  view.order = found;
  const many = runs[run].d_sae.toLocaleString("en");
  const count = document.getElementById("count");
  count.textContent = found.length === runs[run].d_sae ? `${many} latents` : `${found.length.toLocaleString("en")} of ${many} latents`;
  if (few) count.append(`; ${few.toLocaleString("en")} fire on fewer than ${support} images `, showAllButton());
  pool.forEach((item) => item.remove());
  pool.clear();
  layOut();
}

function showAllButton() {
  const button = element("button", { type: "button", class: "plain", text: "show them too" });
  button.addEventListener("click", () => {
    view.support = 0;
    document.getElementById("support").value = "0";
    refreshOrder();
  });
  return button;
}

function rowHeight() {
  return parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
}

function layOut() {
  const height = rowHeight();
  const { order } = view;
  list.style.height = `${Math.max(order.length * height, 80)}px`;
  if (!order.length) {
    if (!list.querySelector(".empty")) list.append(element("p", { class: "empty", text: "No latent is like that." }));
    return;
  }
  list.querySelector(".empty")?.remove();
  const top = list.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / height) - OVERSCAN);
  const last = Math.min(order.length, Math.ceil((innerHeight - top) / height) + OVERSCAN);
  for (const [place, item] of pool) {
    if ((place < first || place >= last) && !item.contains(document.activeElement)) {
      item.remove();
      pool.delete(place);
    }
  }
  for (let place = first; place < last; place++) {
    if (pool.has(place)) continue;
    const item = itemOf(view.run, order[place], place, height);
    // In the order of places, so that Tab goes from row to row.
    const behind = Math.min(...[...pool.keys()].filter((other) => other > place));
    list.insertBefore(item, pool.get(behind) ?? null);
    pool.set(place, item);
  }
}

function itemOf(run, latent, place, height) {
  const row = element("a", {
    class: "row", href: `#latent-${run}-${latent}`, "data-place": place, "data-latent": latent,
    "aria-label": describe(run, latent), draggable: "false",
  });
  row.append(whoIs(run, latent), figuresOf(run, latent), stripOf(run, latent, 12));
  const item = element("div", { class: "item", role: "listitem", "aria-posinset": place + 1, "aria-setsize": view.order.length }, row);
  item.style.transform = `translateY(${place * height}px)`;
  return item;
}

function describe(run, latent) {
  const parts = [`latent ${latent}`, nameOf(run, latent), statusOf(run, latent)];
  if (mainEmbedding(run) !== null && !Number.isNaN(scoreOf(run, latent))) parts.push(`MS ${score(scoreOf(run, latent))}`);
  const name = className(run, mainClass(run, latent));
  if (name) parts.push(`mostly class ${name}`);
  return parts.filter(Boolean).join(", ");
}

function whoIs(run, latent) {
  const status = statusOf(run, latent);
  const name = nameOf(run, latent);
  const kind = className(run, mainClass(run, latent));
  const purity = arrayOf(run, "purity_binary");
  const share = purity && !Number.isNaN(purity[latent]) ? ` ${percent(purity[latent])}` : "";
  const about = status === "dead" ? "never fires" : kind ? `class ${kind}${share}` : status === "scored" ? "" : status;
  const ms = mainEmbedding(run) === null || status !== "scored" ? "" : `MS ${score(scoreOf(run, latent))}`;
  const extra = view.sort.startsWith("change/") && status === "scored" ? ` · ${signed(changeAgainst(run, Number(view.sort.slice(7)), latent))}` : "";
  return element("span", { class: "who" },
    element("b", { text: name ? `${name} · #${latent}` : `#${latent}` }),
    element("span", { class: "narrow", text: ms }),
    element("span", { text: `${about}${extra}` }));
}

function figuresOf(run, latent) {
  const box = element("span", { class: "figures" });
  const add = (title, share, text) => box.append(element("span", { text: title }), meter(share), element("b", { text }));
  if (mainEmbedding(run) !== null) add("MS", scoreOf(run, latent), score(scoreOf(run, latent)));
  const share = shareOfRows(run, latent);
  // On a logarithmic bar, from one in a hundred thousand rows to all.
  if (!Number.isNaN(share)) add("fires", share ? 1 + Math.log10(share) / 5 : 0, percent(share));
  const purity = arrayOf(run, "purity_binary");
  if (purity) add("purity", purity[latent], score(purity[latent]));
  return box;
}

function stripOf(run, latent, most) {
  const strip = element("span", { class: "strip" });
  const images = arrayOf(run, "images");
  if (!images) return strip;
  const count = Math.min(most, runs[run].places[0]);
  for (let i = 0; i < count; i++) {
    const image = images[latent * images.width + i];
    if (image) strip.append(tile(run, image - 1));
  }
  if (!strip.firstChild) strip.append(element("span", { class: "dim", text: "fires on no image" }));
  return strip;
}

function focusRow(place) {
  if (place < 0 || place >= view.order.length) return;
  const height = rowHeight();
  const top = list.getBoundingClientRect().top + place * height;
  const above = document.getElementById("controls").getBoundingClientRect().bottom;
  if (top < above) scrollBy({ top: top - above, behavior: "instant" });
  else if (top + height > innerHeight) scrollBy({ top: top + height - innerHeight, behavior: "instant" });
  layOut();
  pool.get(place)?.firstChild.focus({ preventScroll: true });
}

function moveInList(event) {
  const row = event.target.closest?.(".row");
  if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
  const place = Number(row.dataset.place);
  const page = Math.max(1, Math.floor(innerHeight / rowHeight()) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -place, End: view.order.length - 1 - place };
  if (!(event.key in steps)) return;
  event.preventDefault();
  focusRow(Math.max(0, Math.min(view.order.length - 1, place + steps[event.key])));
}

function fillControls() {
  const { run } = view;
  const sort = document.getElementById("sort");
  const sorts = sortsOf(run);
  sort.replaceChildren(...sorts.map(({ key, title }) => element("option", { value: key, text: title })));
  if (!sorts.some(({ key }) => key === view.sort)) view.sort = sorts[0].key;
  sort.value = view.sort;
  const counts = new Map();
  for (let latent = 0; latent < runs[run].d_sae; latent++) {
    const label = mainClass(run, latent);
    if (label >= 0) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const classes = document.getElementById("class");
  const options = [...counts.keys()].sort((a, b) => a - b).map((label) => element("option", { value: label, text: `${className(run, label)} (${counts.get(label)})` }));
  classes.replaceChildren(element("option", { value: "", text: "any" }), ...options);
  if (!counts.has(Number(view.cls))) view.cls = "";
  classes.value = view.cls;
  document.getElementById("class-label").hidden = !options.length;
}

function showGallery() {
  const change = (id, act) => document.getElementById(id)?.addEventListener("input", (event) => {
    act(event.target.value);
    refreshOrder();
  });
  change("search", (value) => { view.text = value; });
  change("sort", (value) => {
    if (value === "random" && view.sort === "random") view.seed += 1;
    view.sort = value;
  });
  change("support", (value) => { view.support = Number(value); });
  change("status", (value) => { view.status = value; });
  change("class", (value) => { view.cls = value; });
  change("run", (value) => {
    view.run = Number(value);
    fillControls();
  });
  const direction = document.getElementById("direction");
  direction.addEventListener("click", () => {
    view.reversed = !view.reversed;
    if (view.sort === "random") view.seed += 1;
    direction.setAttribute("aria-pressed", String(view.reversed));
    direction.textContent = view.reversed ? "↑" : "↓";
    refreshOrder();
  });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      focusRow(0);
    }
  });
  list.addEventListener("keydown", moveInList);
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      layOut();
    });
  };
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", () => {
    pool.forEach((item) => item.remove());
    pool.clear();
    soon();
  });
  // Rare latents come first by MS and show one image: at first, those that fire often enough.
  const often = Array.from({ length: runs[0].d_sae }, (_, latent) => supportOf(0, latent)).filter((count) => count >= 10).length;
  view.support = often * 4 >= runs[0].d_sae ? 10 : 0;
  document.getElementById("support").value = String(view.support);
  document.getElementById("no-images").hidden = hasImages || !runs.some((_, run) => arrayOf(run, "images"));
  fillControls();
  refreshOrder();
}

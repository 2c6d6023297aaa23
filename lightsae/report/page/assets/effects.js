// What a latent does to the logits of a classifier, where that was measured.

const CHANGE = ["mean", "standard_error", "control_mean", "control_sd", "p_value", "q_value"];

function effectsOf(run, latent) {
  const about = runs[run].effects;
  if (!about) return null;
  const section = element("section", { class: "effects" }, element("h3", { text: "What this latent does" }));
  const say = (text, kind) => section.append(element("p", { class: kind, text }));
  const place = arrayOf(run, "effects/latents").indexOf(latent);
  const firing = place < 0 ? 0 : arrayOf(run, "effects/firing")[place];
  if (!firing) {
    say(place < 0 ? "Not measured." : `Not measured: it fires on none of ${counted(about.images, "image", "images")}.`, "dim");
    return section;
  }
  const edits = [
    { title: "Ablating it", changes: changesOf(run, "ablation", place) },
    { title: `Amplifying it ${short(about.amplify)} times`, changes: changesOf(run, "amplification", place) },
  ];
  const scale = Math.max(...edits.flatMap(({ changes }) => changes.map(extentOf)));
  for (const { title, changes } of edits) {
    say(sentenceOf(title, changes, about.controls), "says");
    if (changes.length) section.append(changesTable(changes, scale));
  }
  say(`Change of class logits at ${about.layer}, mean ± standard error over the ${counted(firing, "image", "images")} of ${about.images.toLocaleString("en")} where it fires. Random: mean ± standard deviation of ${counted(about.controls, "latent", "latents")} that fire about as often; the band in the drawing. p: share of it and these whose change is as far from 0. q: p adjusted by Benjamini and Hochberg over all measured latents and classes.`, "caption");
  return section;
}

function changesOf(run, edit, place) {
  const classes = arrayOf(run, `effects/${edit}/classes`);
  const columns = CHANGE.map((name) => arrayOf(run, `effects/${edit}/${name}`));
  const found = [];
  for (let at = place * classes.width; at < (place + 1) * classes.width; at++) {
    // Where some are missing, the array is signed; -1 stands for none.
    if (classes[at] < 0) continue;
    const [mean, error, control, spread, p, q] = columns.map((column) => column[at]);
    const name = runs[run].effects.named ? className(run, classes[at]) : `class ${classes[at]}`;
    found.push({ name, mean, error, control, spread, p, q });
  }
  return found;
}

function plusMinus(value, spread) {
  return Number.isNaN(spread) ? short(value) : `${short(value)} ± ${short(spread)}`;
}

function sentenceOf(title, changes, controls) {
  if (!changes.length) return `${title} changes no logit.`;
  const most = changes.reduce((a, b) => (Math.abs(b.mean) > Math.abs(a.mean) ? b : a));
  const name = /^\d+$/.test(most.name) ? `class ${most.name}` : most.name;
  const further = Math.round(most.p * (controls + 1)) - 1;
  const beaten = further ? `${further} of ${controls} change it as much` : `none of ${controls} changes it as much`;
  return `${title} ${most.mean < 0 ? "lowers" : "raises"} ${name} by ${short(Math.abs(most.mean))} (random latents: ${plusMinus(most.control, most.spread)}; ${beaten}).`;
}

function extentOf({ mean, error, control, spread }) {
  return Math.max(Math.abs(mean) + (error || 0), Math.abs(control) + (spread || 0));
}

function changesTable(changes, scale) {
  const head = element("tr", {}, ...["class", "", "change", "random", "p", "q"].map((text) => element("th", { scope: "col", text })));
  const rows = changes.map((change) => element("tr", {},
    element("th", { scope: "row", text: change.name, title: change.name }),
    element("td", {}, changeDrawing(change, scale)),
    element("td", { text: plusMinus(change.mean, change.error) }),
    element("td", { text: plusMinus(change.control, change.spread) }),
    element("td", { text: score(change.p) }),
    element("td", { text: score(change.q) })));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

// The bar from 0, its standard error, and behind both the band of random latents.
function changeDrawing({ mean, error, control, spread }, scale) {
  const x = (value) => 100 + (95 * value) / scale;
  const drawing = svgElement("svg", { viewBox: "0 0 200 16", preserveAspectRatio: "none", "aria-hidden": "true" });
  const box = (name, from, to, y, height) => drawing.append(svgElement("rect", { class: name, x: x(Math.min(from, to)), y, width: Math.max(x(Math.max(from, to)) - x(Math.min(from, to)), 0.5), height }));
  box("band", control - (spread || 0), control + (spread || 0), 0, 16);
  box(mean < 0 ? "fall" : "rise", 0, mean, 4, 8);
  if (error) box("error", mean - error, mean + error, 7.5, 1);
  box("zero", 0, 0, 0, 16);
  return drawing;
}

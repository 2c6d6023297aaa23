// What a latent does to a classifier: class logits under its ablation and amplification.

function effectsOf(run, latent) {
  const about = runs[run].effects;
  const row = about ? arrayOf(run, "effects_row")[latent] : -1;
  // Where all latents were measured, the array is unsigned; else -1 stands for none.
  if (!about || row < 0) return null;
  const firing = arrayOf(run, "effects_firing")[row];
  const section = element("section", {}, element("h3", { text: "What this latent does" }));
  if (!firing) {
    section.append(element("p", { class: "caption", text: `It fires on none of the ${counted(about.images, "image", "images")} that the classifier was run on.` }));
    return section;
  }
  section.append(element("p", { class: "caption", text: `Mean change of class logits over the ${counted(firing, "image", "images")} where it fires in ${about.layer}, ± standard error; beside it ${counted(about.controls, "random latent", "random latents")}, mean ± standard deviation.` }),
    element("div", { class: "columns" },
      effectTable(run, row, "ablation", "Ablated"),
      effectTable(run, row, "amplification", `Amplified ${short(about.amplify)} times`)));
  return section;
}

function effectTable(run, row, edit, title) {
  const classes = arrayOf(run, `${edit}_classes`);
  const figure = (name, i) => arrayOf(run, `${edit}_${name}`)[row * classes.width + i];
  const head = ["class", "change", "random", "p"].map((text) => element("th", { scope: "col", text }));
  const body = element("tbody");
  for (let i = 0; i < classes.width; i++) {
    const label = classes[row * classes.width + i];
    const name = className(run, label) || String(label);
    body.append(element("tr", {},
      element("th", { scope: "row", text: name, title: name }),
      element("td", { text: withSpread(figure("mean", i), figure("standard_error", i)) }),
      element("td", { class: "dim", text: withSpread(figure("control_mean", i), figure("control_sd", i)) }),
      element("td", { text: short(figure("p_value", i)) })));
  }
  return element("table", { class: "effects", "data-edit": edit }, element("caption", { text: title }),
    element("thead", {}, element("tr", {}, ...head)), body);
}

function withSpread(value, spread) {
  return Number.isNaN(spread) ? signed(value) : `${signed(value)} ± ${short(spread)}`;
}

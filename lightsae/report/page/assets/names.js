// Names of latents: those of the run, and before them those that a reader gives; the browser keeps
// the latter, if it keeps anything for files.

const NAMES_KEY = `lightsae/${contents.identity}`;
let names = {};

function loadNames() {
  try {
    const found = JSON.parse(localStorage.getItem(NAMES_KEY) || "{}");
    if (found && typeof found === "object") names = found;
  } catch {
    names = {};
  }
}

function nameOf(run, latent) {
  return ownName(run, latent) || givenName(run, latent);
}

function ownName(run, latent) {
  const found = names[`${runs[run].name}#${latent}`];
  return typeof found === "string" ? found : "";
}

// What the run's vocabulary or labels call it; nothing below the cut-off.
function givenName(run, latent) {
  return candidatesOf(run, latent)[0]?.word ?? "";
}

function candidatesOf(run, latent) {
  const words = arrayOf(run, "names/words");
  if (!words) return [];
  const scores = arrayOf(run, "names/scores");
  const found = [];
  for (let at = latent * words.width; at < (latent + 1) * words.width; at++) {
    const word = runs[run].names.words[words[at]];
    if (word !== undefined) found.push({ word, score: scores[at] });
  }
  return found;
}

function setName(run, latent, text) {
  const key = `${runs[run].name}#${latent}`;
  if (text) names[key] = text;
  else delete names[key];
  try {
    localStorage.setItem(NAMES_KEY, JSON.stringify(names));
  } catch {
    // They last as long as the page is open.
  }
}

function saveNames() {
  const found = {};
  for (const [key, text] of Object.entries(names)) {
    const cut = key.lastIndexOf("#");
    (found[key.slice(0, cut)] ||= {})[key.slice(cut + 1)] = text;
  }
  const url = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
  element("a", { href: url, download: "latent-names.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

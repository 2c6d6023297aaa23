// Making elements; text is always text, never markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function svgElement(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

// Three digits, without a leading zero: .802, 12, 1.2e-5.
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) text = value.toExponential(1);
  else if (Number.isInteger(value)) text = value.toLocaleString("en");
  else text = size < 1 ? value.toFixed(3).replace("0.", ".") : value.toPrecision(3);
  return text.replace("-", "−");
}

function signed(value) {
  return Number.isNaN(value) ? "–" : (value > 0 ? "+" : "") + short(value);
}

// A score from 0 to 1.
function score(value) {
  return Number.isNaN(value) ? "–" : value.toFixed(3).replace("0.", ".").replace("-", "−");
}

function counted(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function percent(share) {
  if (Number.isNaN(share)) return "–";
  if (!share) return "0%";
  if (share > 0.9995) return "100%";
  const value = share * 100;
  return value < 0.01 ? "<.01%" : `${value < 1 ? value.toFixed(2).replace("0.", ".") : value.toFixed(1)}%`;
}

// A thumbnail, or the number of the sample where there is none.
function tile(run, image) {
  const sample = arrayOf(null, "sample")[image];
  const label = arrayOf(null, "label")[image];
  const name = className(run, label);
  const described = `sample ${sample}${name ? `, class ${name}` : ""}`;
  const sprite = spriteOf(image);
  if (!sprite) {
    const text = name && name.length < 12 ? `${sample}\n${name}` : String(sample);
    return element("span", { class: "tile number", role: "img", "aria-label": described, title: described, text });
  }
  const made = element("span", {
    class: sprite.side <= 20 ? "tile crisp" : "tile", role: "img", "aria-label": `Image of ${described}`, title: described,
  });
  made.style.backgroundImage = `url("${sprite.url}")`;
  made.style.backgroundSize = `${sprite.columns * 100}% ${sprite.rows * 100}%`;
  const x = sprite.columns > 1 ? (sprite.column / (sprite.columns - 1)) * 100 : 0;
  const y = sprite.rows > 1 ? (sprite.row / (sprite.rows - 1)) * 100 : 0;
  made.style.backgroundPosition = `${x}% ${y}%`;
  return made;
}

function className(run, label) {
  const names = runs[run].classes;
  return label === null || label === undefined || label < 0 || label >= names.length ? "" : names[label];
}

function meter(share) {
  const bar = element("i");
  bar.style.width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return element("span", { class: "meter", "aria-hidden": "true" }, bar);
}

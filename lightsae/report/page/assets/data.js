// The page's data: JSON, typed arrays by name, sheets of thumbnails.

const contents = JSON.parse(document.getElementById("contents").textContent);
const runs = contents.runs;

function bytesOf(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const KINDS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array,
};
let buffer = null;
const opened = new Map();

async function unpackArrays() {
  const stream = new Blob([bytesOf("arrays")]).stream().pipeThrough(new DecompressionStream("gzip"));
  buffer = await new Response(stream).arrayBuffer();
}

// An array of a run, or null; of two axes it has `width`.
function arrayOf(run, name) {
  const key = run === null ? name : `${run}/${name}`;
  if (!opened.has(key)) {
    const found = contents.index[key];
    let array = null;
    if (found) {
      const size = found.shape.reduce((a, b) => a * b, 1);
      array = new KINDS[found.kind](buffer, found.offset, size);
      array.width = found.shape.length > 1 ? found.shape[1] : 1;
    }
    opened.set(key, array);
  }
  return opened.get(key);
}

const sheets = new Map();

function sheetURL(number, mime) {
  if (!sheets.has(number)) {
    const element = document.getElementById(`sheet-${number}`);
    sheets.set(number, URL.createObjectURL(new Blob([bytesOf(element.id)], { type: mime })));
    element.remove();
  }
  return sheets.get(number);
}

// Where the thumbnail of an image lies, or null where there is none.
function spriteOf(image) {
  const group = contents.sheets.find((each) => image >= each.first && image < each.first + each.count);
  if (!group || !group.side || group.missing.includes(image)) return null;
  const place = image - group.first;
  const perSheet = group.columns * group.rows;
  const inSheet = place % perSheet;
  const sheet = Math.floor(place / perSheet);
  // The last sheet has only as many rows as it needs.
  const left = group.count - sheet * perSheet;
  return {
    url: sheetURL(group.sheet + sheet, group.mime),
    column: inSheet % group.columns, row: Math.floor(inSheet / group.columns),
    columns: group.columns, rows: Math.ceil(Math.min(left, perSheet) / group.columns),
    side: group.side,
  };
}

const hasImages = contents.sheets.some((group) => group.side > 0);

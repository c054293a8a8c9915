// Draw arrays of numbers as pictures.

const HEAT = [[0, 0, 0], [120, 28, 109], [237, 105, 37], [252, 255, 164]]; // four stops of matplotlib's colour map inferno
const MOST_CHANNELS = 4; // an array of three axes whose first one is longer has its channels last
const MOST_SCALED = 16; // positive numbers up to here are no grey levels of bytes

/** Convert rows to ImageData: `paint(level)` returns red, green and blue. */
export function imageOf(rows, paint = grey) {
  const image = new ImageData(rows[0].length, rows.length);
  rows.flat().forEach((level, at) => image.data.set([...paint(level), 255], at * 4));
  return image;
}

/** Draw rows on a canvas, which is resized to fit. */
export function drawGrid(canvas, rows, paint = grey) {
  Object.assign(canvas, { width: rows[0].length, height: rows.length });
  canvas.getContext("2d").putImageData(imageOf(rows, paint), 0, 0);
}

/**
 * Convert an array (H, W), (channels, H, W) or (H, W, channels) to rows of 0..255, of [red, green, blue] if it has
 * colours. `bytes`: its numbers are 0..255; other numbers are scaled, as a network's input may be centred or 0..1.
 */
export function rowsOf(array, { bytes = false } = {}) {
  const scale = bytes ? (level) => level : scaleOf(array.flat(2));
  return pixelsOf(array).map((row) => row.map((channels) => (channels.length < 3 ? scale(channels[0]) : channels.slice(0, 3).map(scale))));
}

/** Reduce such an array to rows of the greatest number of each pixel. */
export function greatestOf(array) {
  return pixelsOf(array).map((row) => row.map((channels) => Math.max(...channels)));
}

/** Return the channels of each pixel, in rows. */
function pixelsOf(array) {
  if (!Array.isArray(array[0][0])) return array.map((row) => row.map((level) => [level]));
  if (array.length <= MOST_CHANNELS) return array[0].map((row, y) => row.map((_, x) => array.map((plane) => plane[y][x])));
  return array;
}

/** Return a function from numbers to 0..255: of bytes itself, of 0..1 its multiple, else from the least to the greatest. */
function scaleOf(numbers) {
  const least = numbers.reduce((a, b) => Math.min(a, b), Infinity);
  const most = numbers.reduce((a, b) => Math.max(a, b), -Infinity);
  if (least >= 0 && most <= 1) return (level) => 255 * level;
  if (least >= 0 && most > MOST_SCALED && most <= 255) return (level) => level;
  return (level) => (255 * (level - least)) / (most - least || 1);
}

/** Colour of 0..255, from black to white; a colour is itself. */
function grey(level) {
  return Array.isArray(level) ? level : [level, level, level];
}

/** Colour of 0..1, from black through purple and orange to light yellow, with increasing lightness. */
export function heat(share) {
  const at = Math.min(HEAT.length - 2, Math.floor(share * (HEAT.length - 1)));
  const within = share * (HEAT.length - 1) - at;
  return HEAT[at].map((level, part) => level + (HEAT[at + 1][part] - level) * within);
}

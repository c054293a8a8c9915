// Draw rows of numbers as a picture.

const HEAT = [[0, 0, 0], [120, 28, 109], [237, 105, 37], [252, 255, 164]]; // four stops of matplotlib's colour map inferno

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

/** Colour of 0..255, from black to white. */
function grey(level) {
  return [level, level, level];
}

/** Colour of 0..1, from black through purple and orange to light yellow, with increasing lightness. */
export function heat(share) {
  const at = Math.min(HEAT.length - 2, Math.floor(share * (HEAT.length - 1)));
  const within = share * (HEAT.length - 1) - at;
  return HEAT[at].map((level, part) => level + (HEAT[at + 1][part] - level) * within);
}

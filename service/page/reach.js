/** How far around zero to look, from examples of inputs: half as far again as the farthest, to two figures. */
export function reach(inputs) {
  const farthest = Math.max(...inputs.flat().map(Math.abs)) || 1;
  return Number((farthest * 1.5).toPrecision(2));
}

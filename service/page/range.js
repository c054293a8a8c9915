/** Range of inputs to show around zero: 1.5 times the largest example, rounded to two digits. */
export function inputRange(inputs) {
  const farthest = Math.max(...inputs.flat().map(Math.abs)) || 1;
  return Number((farthest * 1.5).toPrecision(2));
}

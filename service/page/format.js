// Format numbers and times.

/** Format a number with about four significant digits. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e12) return String(value);
  return size < 1e-4 || size >= 1e6 ? scientific(value) : String(Number(value.toPrecision(4)));
}

/** 123456 -> "1.23e5". */
export function scientific(value) {
  return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
}

/** 0.987 -> "98.7 %". */
export function percent(value) {
  return `${(value * 100).toFixed(value > 0.9995 || value < 0.0005 ? 0 : 1)} %`;
}

/** 1234567 -> "1.23 MB". */
export function bytes(count) {
  const [least, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([one]) => count >= one) ?? [1, "bytes"];
  return `${Number((count / least).toPrecision(3))} ${unit}`;
}

/** Format an ISO time as short local time. */
export function when(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  const options = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(undefined, options).format(at);
}

/** Format the time between two ISO times. */
export function duration(from, to) {
  const seconds = Math.max(0, (new Date(to) - new Date(from)) / 1000);
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** "batch_size" -> "batch size". */
export function words(name) {
  return name.replaceAll("_", " ");
}

/** "nothing is live" -> "Nothing is live.". */
export function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "";
}

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60]];

/** 5400 -> "1 h 30 min": the two largest units. */
export function lasting(seconds) {
  let left = Math.round(seconds * 10) / 10;
  const parts = [];
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    if (count) parts.push(`${count} ${unit}`);
    left -= count * size;
  }
  if (left >= 0.1 || !parts.length) parts.push(`${Number(left.toFixed(parts.length || left >= 10 ? 0 : 1))} s`);
  return parts.slice(0, 2).join(" ");
}

/** Return the seconds of an ISO 8601 duration: "PT10M" -> 600. */
export function secondsIn(iso) {
  const [, days, hours, minutes, seconds] = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?$/.exec(iso).map((one) => Number(one ?? 0));
  return days * 86_400 + hours * 3_600 + minutes * 60 + seconds;
}

// Encode grey pixels as an uncompressed PNG file, at once: Canvas.toBlob waits for an idle moment, for up to a second.

const MAGIC = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY = [8, 0, 0, 0, 0]; // bit depth, colour type, deflate, the five filters, not interlaced
const MOST_STORED = 0xffff; // bytes of a block that is not compressed
const MODULUS = 65521; // of Adler-32
const CRC_OF_BYTE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte >>> 0;
});

/** Return a PNG file of grey levels, Uint8Array of width * height, as a Blob. */
export function greyPng(levels, width, height) {
  const rows = new Uint8Array((width + 1) * height); // each begins with the number of its filter: 0, none
  for (let y = 0; y < height; y++) rows.set(levels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = [...number(width), ...number(height), ...GREY];
  const file = [...MAGIC, ...chunk("IHDR", header)];
  return new Blob([Uint8Array.from(file), chunk("IDAT", stored(rows)), chunk("IEND", [])], { type: "image/png" });
}

/** Return a zlib stream of blocks that are not compressed. */
function stored(bytes) {
  const blocks = Math.max(1, Math.ceil(bytes.length / MOST_STORED));
  const stream = new Uint8Array(2 + 5 * blocks + bytes.length + 4);
  stream.set([0x78, 0x01]);
  let at = 2;
  for (let block = 0; block < blocks; block++) {
    const part = bytes.subarray(block * MOST_STORED, (block + 1) * MOST_STORED);
    const size = [part.length & 0xff, part.length >>> 8];
    stream.set([Number(block === blocks - 1), ...size, ...size.map((byte) => byte ^ 0xff)], at);
    stream.set(part, at + 5);
    at += 5 + part.length;
  }
  stream.set(number(adler(bytes)), at);
  return stream;
}

function chunk(kind, body) {
  const whole = new Uint8Array(body.length + 12);
  whole.set(number(body.length));
  whole.set(Array.from(kind, (letter) => letter.charCodeAt(0)), 4);
  whole.set(body, 8);
  whole.set(number(crc(whole.subarray(4, -4))), body.length + 8);
  return whole;
}

function number(value) {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function crc(bytes) {
  return ~bytes.reduce((sum, byte) => CRC_OF_BYTE[(sum ^ byte) & 0xff] ^ (sum >>> 8), ~0) >>> 0;
}

function adler(bytes) {
  let [low, high] = [1, 0];
  for (const byte of bytes) {
    low = (low + byte) % MODULUS;
    high = (high + low) % MODULUS;
  }
  return ((high << 16) | low) >>> 0;
}

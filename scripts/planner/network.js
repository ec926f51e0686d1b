// Networks of IPv4 and IPv6 as integers: read, written and cut (RFC 4632, RFC 4291, RFC 5952).

const BITS = { 4: 32, 6: 128 };

export class Unreadable extends Error {}

const fail = (message) => {
  throw new Unreadable(message);
};

const octet = (text) =>
  /^(0|[1-9]\d{0,2})$/.test(text) && Number(text) < 256
    ? BigInt(text)
    : fail(`「${text}」は、0〜255の数ではありません`);

const read4 = (text) => {
  const octets = text.split(".");
  if (octets.length !== 4) fail(`「${text}」は、IPv4アドレスではありません`);
  return octets.map(octet).reduce((sum, part) => (sum << 8n) | part, 0n);
};

const hextets = (text) => (text ? text.split(":") : []);

const fill = (text) => {
  const halves = text.split("::").map(hextets);
  if (halves.length === 1) return halves[0];
  const missing = 8 - halves.flat().length;
  if (halves.length > 2 || missing < 1) fail(`「${text}」は、IPv6アドレスではありません`);
  return [...halves[0], ...Array(missing).fill("0"), ...halves[1]];
};

const read6 = (text) => {
  const groups = fill(text);
  const good = groups.length === 8 && groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group));
  if (!good) fail(`「${text}」は、IPv6アドレスではありません`);
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
};

const write4 = (first) => [24n, 16n, 8n, 0n].map((by) => (first >> by) & 255n).join(".");

/** Write the longest run of zero groups as `::`, the first of equals (RFC 5952 §4.2). */
const shorten = (text) => {
  const runs = text.match(/\b0(?::0)+\b/g) ?? [];
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), "");
  return longest ? text.replace(new RegExp(`(^|:)${longest}(:|$)`), "::") : text;
};

const group = (value, at) => ((value >> BigInt(112 - 16 * at)) & 0xffffn).toString(16);

const write6 = (value) => shorten([0, 1, 2, 3, 4, 5, 6, 7].map((at) => group(value, at)).join(":"));

const READ = { 4: read4, 6: read6 };
const WRITE = { 4: write4, 6: write6 };

/** Return how many addresses a network has. */
export const size = ({ family, prefix }) => 1n << BigInt(BITS[family] - prefix);

/** Return an address as text. */
export const address = (family, value) => WRITE[family](value);

/** Return a network as text, as in 192.0.2.0/24. */
export const write = (network) => `${address(network.family, network.first)}/${network.prefix}`;

const prefixOf = (text, family) =>
  /^\d{1,3}$/.test(text ?? "") && Number(text) <= BITS[family]
    ? Number(text)
    : fail(`「/」の後に、0〜${BITS[family]}のプレフィックス長を書いてください`);

/** Read a network; throw `Unreadable`, in the reader's words, if it is none or has host bits. */
export const read = (text, family) => {
  const [start, length, more] = text.trim().split("/");
  if (more !== undefined) fail(`「${text}」には、「/」が2つあります`);
  const value = READ[family](start);
  const prefix = prefixOf(length, family);
  const network = { family, first: value, prefix };
  const first = value - (value % size(network));
  const mended = write({ ...network, first });
  if (first !== value) fail(`${start}は、/${prefix}の先頭ではありません。${mended}ではありませんか`);
  return network;
};

/** Return the largest network that starts at `from` and ends before `to`. */
const largest = (family, from, to) => {
  let prefix = BITS[family];
  const fits = (wider) => from % wider === 0n && from + wider <= to;
  while (prefix > 0 && fits(1n << BigInt(BITS[family] - prefix + 1))) prefix -= 1;
  return { family, first: from, prefix };
};

/** Return the fewest networks that cover [from, to) exactly, in order. */
export const cover = (family, from, to) => {
  const networks = [];
  for (let at = from; at < to; at += size(networks.at(-1))) networks.push(largest(family, at, to));
  return networks;
};

/** Return the prefix length of the smallest network with at least `count` addresses. */
export const prefixFor = (family, count) =>
  BITS[family] - (count > 1n ? (count - 1n).toString(2).length : 0);

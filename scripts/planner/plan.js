// Divide a block among sites, environments and uses: aligned, summarizable, with room to grow.

import { Unreadable, cover, prefixFor, size, write } from "./network.js";

// Addresses of a subnet that hosts cannot have, and how wide and how narrow a subnet may be.
const PLACES = {
  general: { head: 1n, tail: 1n, widest: 1, narrowest: 30 }, // RFC 1122 §3.2.1.3
  aws: { head: 4n, tail: 1n, widest: 16, narrowest: 28 }, // VPC User Guide, "Subnet CIDR blocks"
};
const MOST = 1000; // subnets that a person can still read

const sum = (widths) => widths.reduce((total, width) => total + width, 0n);

const power = (bits) => 1n << BigInt(bits);

/** Return how many hosts a use will have: today's number times its growth, rounded up. */
export const expected = ({ hosts, growth }) =>
  BigInt(Math.ceil(Number((hosts * growth).toFixed(6))));

const wideEnough = (need, { head, tail, widest, narrowest }) => {
  const prefix = prefixFor(4, expected(need) + head + tail);
  if (prefix < widest)
    throw new Unreadable(`「${need.name}」は、1つのサブネット（最も広くて/${widest}）に入りません`);
  return power(32 - Math.min(prefix, narrowest));
};

const upToNibble = (width) => power(Math.ceil((128 - prefixFor(6, width)) / 4) * 4);

// How wide a subnet is, and how wide a group around a total of addresses. In IPv6 every subnet
// is a /64 (RFC 7421), and a group ends at a hexadecimal digit so that people can read it.
const FAMILIES = {
  4: { subnet: wideEnough, group: (total) => power(32 - prefixFor(4, total)) },
  6: { subnet: () => power(64), group: upToNibble },
};

const spared = (total, percent) => total + (total * BigInt(percent) + 99n) / 100n;

const leaf = (family, need, place) => ({
  name: need.name,
  need,
  parts: [],
  width: FAMILIES[family].subnet(need, PLACES[place]),
});

/** Return a group with its parts, measured from the subnets up; nothing has an address yet. */
const measure = (family, name, [names, ...below], wanted) => {
  const parts = names
    ? names.map((one) => measure(family, one, below, wanted))
    : wanted.needs.map((need) => leaf(family, need, wanted.place));
  const total = sum(parts.map((part) => part.width));
  const roomy = names ? total : spared(total, wanted.spare);
  return { name, parts, total, width: FAMILIES[family].group(roomy) };
};

/** Return the group placed in its network: the widest part first, so that every part is aligned. */
const settle = (group, network) => {
  let at = network.first;
  const parts = group.parts
    .toSorted((one, other) => (one.width < other.width) - (one.width > other.width))
    .map((part) => {
      const prefix = prefixFor(network.family, part.width);
      const placed = settle(part, { family: network.family, first: at, prefix });
      at += part.width;
      return placed;
    });
  const end = network.first + size(network);
  return { ...group, network, parts, free: parts.length ? cover(network.family, at, end) : [] };
};

const allocate = (block, wanted) => {
  const whole = measure(block.family, "", wanted.levels, wanted);
  if (whole.total > size(block)) {
    const least = prefixFor(block.family, whole.total);
    throw new Unreadable(`${write(block)}には入りません。/${least}以上の広さが要ります`);
  }
  return settle(whole, block);
};

/** Return the addresses that hosts can have: the first, the last and how many (IPv4). */
export const usable = (network, place) => {
  const { head, tail } = PLACES[place];
  const first = network.first + head;
  const last = network.first + size(network) - 1n - tail;
  return { first, last, count: last - first + 1n };
};

const subnets = ({ levels, needs }) =>
  levels.reduce((count, names) => count * names.length, needs.length);

/**
 * Divide the blocks as wanted.
 * wanted: { blocks: [network], levels: [[name]], needs: [{ name, hosts, growth }], spare: %, place }.
 * Returns a tree per block: { name, network, parts, free }.
 * Throws `Unreadable` when it does not fit.
 */
export const plan = (wanted) => {
  if (subnets(wanted) > MOST)
    throw new Unreadable(`サブネットが${subnets(wanted)}個になります。${MOST}個までにしてください`);
  return wanted.blocks.map((block) => allocate(block, wanted));
};

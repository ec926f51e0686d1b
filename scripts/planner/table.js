// A plan as rows: on the page, as a Markdown table and as CSV.

import { address, write } from "./network.js";
import { expected, usable } from "./plan.js";

const HEAD = ["場所", "用途", "IPv4", "IPv6", "使えるアドレス", "使える数", "見込み"];

const share = (part, place) => {
  const { first, last, count } = usable(part.network, place);
  return [`${address(4, first)}〜${address(4, last)}`, `${count}`, `${expected(part.need)}`];
};

const names = (path) => path.join(" ") || "全体";

const text = (part) => (part ? write(part.network) : "");

const four = (part, place) => (part?.need ? share(part, place) : ["", "", ""]);

const row = (kind, path, use, one, other, place) => ({
  kind,
  cells: [names(path), use, text(one), text(other), ...four(one, place)],
});

const left = (tree) => (tree?.free ?? []).map(write).join(" ");

/** Return the row of what is left of a group, or nothing when it is full. */
const spare = (one, other, path) => {
  const [four, six] = [left(one), left(other)];
  const cells = [names(path), "予備", four, six, "", "", ""];
  return four || six ? [{ kind: "free", cells }] : [];
};

/** Return the rows of one group, IPv4 and IPv6 side by side, in the order of their addresses. */
const group = (one, other, path, place) => {
  const lead = one ?? other;
  const same = (part, that) => part.need === that.need && part.name === that.name;
  const twin = (part) => other?.parts.find((that) => same(part, that));
  const rows = lead.parts.flatMap((part) => {
    const pair = one ? [part, twin(part)] : [undefined, part];
    if (part.need) return [row("subnet", path, part.name, ...pair, place)];
    const below = [...path, part.name];
    return [row("group", below, "全体", ...pair, place), ...group(...pair, below, place)];
  });
  return [...rows, ...spare(one, other, path)];
};

/** Return the rows of a plan: { kind: "group" | "subnet" | "free", cells }. */
export const rows = (trees, place) => {
  const of = (family) => trees.find((tree) => tree.network.family === family);
  return group(of(4), of(6), [], place);
};

const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;

/** Return a GitHub-flavoured Markdown table. */
export const markdown = (all) =>
  [HEAD, HEAD.map(() => "---"), ...all.map(({ cells }) => cells)].map(line).join("\n").concat("\n");

const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

/** Return CSV (RFC 4180). */
export const csv = (all) =>
  [HEAD, ...all.map(({ cells }) => cells)]
    .map((cells) => `${cells.map(quoted).join(",")}\r\n`)
    .join("");

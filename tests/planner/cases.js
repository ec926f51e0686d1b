// Plan every case given on standard input and answer in plain JSON, for pytest to check.
import { readFileSync } from "node:fs";
import * as network from "../../scripts/planner/network.js";
import { plan, usable } from "../../scripts/planner/plan.js";

const plain = (group, place) => ({
  name: group.name,
  network: network.write(group.network),
  usable: group.need ? Number(usable(group.network, place).count) : null,
  parts: group.parts.map((part) => plain(part, place)),
  free: group.free.map(network.write),
});

const answer = ({ blocks, ...wanted }) => {
  try {
    const read = blocks.map(([text, family]) => network.read(text, family));
    return { trees: plan({ ...wanted, blocks: read }).map((tree) => plain(tree, wanted.place)) };
  } catch (error) {
    if (!(error instanceof network.Unreadable)) throw error;
    return { refused: error.message };
  }
};

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));

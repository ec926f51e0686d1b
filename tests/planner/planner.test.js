// The planner's parts, one sentence each.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as network from "../../scripts/planner/network.js";
import { expected, plan, usable } from "../../scripts/planner/plan.js";
import * as shared from "../../scripts/planner/shared.js";
import * as table from "../../scripts/planner/table.js";

const wanted = (changes = {}) => ({
  blocks: [network.read("10.20.0.0/16", 4), network.read("2001:db8:20::/48", 6)],
  levels: [["東京", "大阪"], ["本番", "検証"]],
  needs: [
    { name: "DB", hosts: 20, growth: 1.5 },
    { name: "Web", hosts: 100, growth: 2 },
  ],
  spare: 25,
  place: "general",
  ...changes,
});

const cells = (changes) => table.rows(plan(wanted(changes)), "general").map((row) => row.cells);

const refusal = (text, family = 4) => {
  try {
    return network.read(text, family);
  } catch (error) {
    return error.message;
  }
};

test("an address inside a block names the block that was meant", () => {
  assert.match(refusal("10.20.1.0/16"), /10\.20\.0\.0\/16ではありませんか/);
});

for (const text of "10.0.0.0 10.0.0.0/33 10.0.0/8 010.0.0.0/8 256.0.0.0/8 a/8 10.0.0.0/8/9 ".split(" "))
  test(`「${text}」 is refused as IPv4`, () => assert.equal(typeof refusal(text), "string"));

for (const text of "2001:db8:: 1::2::3/64 1:2:3:4:5:6:7:8:9/64 12345::/16 ::/129 :/0 1:2:3/64".split(" "))
  test(`「${text}」 is refused as IPv6`, () => assert.equal(typeof refusal(text, 6), "string"));

test("the wider subnet comes first, so that both are aligned", () => {
  const [, , web, db] = cells();
  assert.deepEqual([web[1], web[2], db[1], db[2]], ["Web", "10.20.0.0/24", "DB", "10.20.1.0/27"]);
});

test("every environment has the same layout", () => {
  const web = cells().filter(([, use]) => use === "Web");
  const third = web.map((row) => row[2].split(".")[2]);
  assert.deepEqual(third, ["0", "2", "4", "6"]);
});

test("every IPv6 subnet is a /64 and a group ends at a hexadecimal digit", () => {
  const v6 = cells().filter(([, use]) => use !== "予備").map((row) => row[3]);
  assert.equal(v6.every((text) => Number(text.split("/")[1]) % 4 === 0), true);
});

test("growth by a tenth of ten hosts is one host, not two", () => {
  assert.equal(expected({ hosts: 10, growth: 1.1 }), 11n);
});

test("a VPC keeps five addresses of each subnet and goes no narrower than /28", () => {
  const one = { levels: [], needs: [{ name: "小", hosts: 1, growth: 1 }], place: "aws" };
  assert.equal(network.write(plan(wanted(one))[0].parts[0].network), "10.20.0.0/28");
  assert.equal(usable(network.read("10.20.0.0/28", 4), "aws").count, 11n);
});

test("a block that is too narrow says how wide it must be", () => {
  const narrow = { blocks: [network.read("10.0.0.0/24", 4)] };
  assert.throws(() => plan(wanted(narrow)), /10\.0\.0\.0\/24には入りません。\/21以上/);
});

test("more subnets than a person can read are refused", () => {
  const names = [...Array(40).keys()].map(String);
  assert.throws(() => plan(wanted({ levels: [names, names] })), /3200個/);
});

test("a need that no subnet can hold names the need", () => {
  const huge = { needs: [{ name: "巨大", hosts: 70000, growth: 1 }], place: "aws" };
  assert.throws(() => plan(wanted(huge)), /「巨大」/);
});

test("a plan survives being shared", () => {
  const fields = { v4: "10.0.0.0/8", v6: "", place: "aws", sites: "東京、大阪", envs: "本番", spare: "0" };
  const needs = [{ name: "A*B & C=D", hosts: "10", growth: "1.5" }];
  assert.deepEqual(shared.read(shared.write({ ...fields, needs })), { ...fields, needs });
});

test("a fragment that is a heading carries no plan", () => {
  assert.equal(shared.read("#planner"), null);
});

test("a cell with a bar or a quotation mark stays one cell", () => {
  const rows = [{ kind: "subnet", cells: ['a|b', 'c"d', "", "", "", "", ""] }];
  assert.match(table.markdown(rows), /a\\\|b/);
  assert.match(table.csv(rows), /"c""d"/);
});

test("IPv6 alone makes a plan", () => {
  const six = cells({ blocks: [network.read("2001:db8::/48", 6)] });
  assert.deepEqual(six[2].slice(1, 3), ["DB", ""]);
  assert.equal(six[2][3], "2001:db8::/64");
});

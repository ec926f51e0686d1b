// Progress in a track, one sentence each.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as progress from "../../scripts/tracks/progress.js";

const { Unreadable, fromFile, load, save, standing, toFile } = progress;

const shelf = () => {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
};

test("what is done is there again", () => {
  const storage = shelf();
  save(storage, "sre", new Set(["read a", "run b"]));
  assert.deepEqual(load(storage, "sre"), new Set(["read a", "run b"]));
});

test("tracks do not share what is done", () => {
  const storage = shelf();
  save(storage, "sre", new Set(["read a"]));
  assert.equal(load(storage, "backend").size, 0);
});

for (const kept of ["", "{", "null", "3", '{"a":1}', "[1,2]"])
  test(`a browser that kept ${JSON.stringify(kept)} starts anew`, () => {
    assert.equal(load({ getItem: () => kept }, "sre").size, 0);
  });

test("a browser that keeps nothing starts anew and does not fail", () => {
  save(undefined, "sre", new Set(["read a"]));
  assert.equal(load(undefined, "sre").size, 0);
});

test("a file carries what is done", () => {
  const done = new Set(["run b", "read a"]);
  assert.deepEqual(fromFile(toFile("sre", done), "sre"), done);
});

const later = '{"infraNotesTrack":2,"track":"sre","done":[]}';
const numbers = '{"infraNotesTrack":1,"track":"sre","done":[1]}';
for (const text of ["", "x", "{}", "[]", later, numbers])
  test(`${text} is no such file`, () => {
    assert.throws(() => fromFile(text, "sre"), new Unreadable("進み具合のファイルではありません"));
  });

test("the file of another track is refused by its name", () => {
  assert.throws(() => fromFile(toFile("sre", new Set()), "backend"), /別のトラック（sre）/);
});

test("minutes left are those of the steps not done", () => {
  const steps = [{ key: "a", minutes: 5 }, { key: "b", minutes: 7 }];
  assert.deepEqual(standing(steps, new Set(["a", "gone"])), { steps: 2, done: 1, left: 7 });
});

// The search's parts, each against the smallest text that shows it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { distance, nearest } from "../../scripts/search/distance.js";
import { fold } from "../../scripts/search/fold.js";
import { Library } from "../../scripts/search/library.js";
import { contains, needle, stretched } from "../../scripts/search/needle.js";
import { textOf } from "../../scripts/search/prose.js";
import { LONGEST, analyse } from "../../scripts/search/query.js";
import { rank } from "../../scripts/search/rank.js";
import { results } from "../../scripts/search/result.js";

const DOCS = [
  { location: "os/memory/", title: "仮想メモリ", text: "" },
  { location: "os/memory/#page-table", title: "ページテーブル", text: "<p>仮想メモリの<b>対応表</b>です。</p>" },
  { location: "os/process/", title: "プロセス", text: "" },
  { location: "os/process/#zombie", title: "ゾンビが残る理由", text: "<p>親がwaitしないと残ります。a &lt; b</p>" },
  { location: "net/tcp/", title: "TCP", text: "<p>サーバーはTIME_WAITで待つ。接続の終わりの話。</p>", tags: ["L4"] },
];
const GLOSSARY = [
  { spellings: ["ゾンビ", "zombie process", "ゾンビプロセス"], home: "os/process/#zombie" },
  { spellings: ["TIME-WAIT", "タイムウェイト"], home: "" },
  { spellings: ["仮想メモリ", "virtual memory"], home: "os/memory/" },
];
const library = new Library(DOCS, GLOSSARY);
const find = (query, shelf = library) => {
  const terms = analyse(query, shelf);
  return terms.length ? results(rank(terms, shelf), terms, shelf) : [];
};
const pages = (query) => find(query).map(([page]) => page.location);

for (const [a, b] of [
  ["ＴＣＰ／ＩＰ", "tcp/ip"],
  ["ﾍﾟｰｼﾞ", "ページ"],
  ["ぷろせす", "プロセス"],
  ["フォーク", "フオーク"],
  ["TIME_WAIT", "time-wait"],
  ["コピー・オン・ライト", "コピーオンライト"],
  ["ハンドシェイク", "ハンドシェーク"],
  ["サ-バ", "サーバ"],
])
  test(`${a} folds as ${b} does`, () => assert.equal(fold(a).text, fold(b).text));

test("folding remembers where each letter came from", () => {
  const folded = fold("a ﾍﾟ☕㎞");
  assert.equal(folded.text, "aペ☕km");
  assert.deepEqual(folded.from, [0, 2, 4, 5, 5]);
  assert.deepEqual(folded.to, [1, 4, 5, 6, 6]);
});

test("half a surrogate pair folds without an exception", () => assert.equal(fold("\ud83d x").text, "\ud83dx"));

test("ASCII is found from a word's start, and an abbreviation as a whole word", () => {
  assert.ok(contains(fold("nat gateway"), needle("gate")));
  assert.ok(!contains(fold("alternate"), needle("nat")));
  assert.ok(!contains(fold("native"), needle("nat", true)));
});

test("a long vowel may be missing in the text, or in the query", () => {
  assert.ok(contains(fold("コンピュータ"), needle(fold("コンピューター").text)));
  assert.ok(contains(fold("インタープリター"), stretched(fold("インタプリタ").text)));
  assert.ok(!contains(fold("ビル"), needle(fold("ビール").text)));
});

test("a slip of the finger is one step, three are too many", () => {
  assert.equal(distance("tiem", "time", 1), 1);
  assert.equal(distance("abcdef", "fedcba", 2), Infinity);
  assert.equal(nearest("conection", ["collection", "connection"]), "connection");
  assert.equal(nearest("xy", ["xz"]), undefined);
});

test("a section's HTML is read as text", () => assert.equal(textOf("<p>a<code>b</code></p><p>&lt;c&gt;</p>"), "ab <c>"));

test("grammar in a sentence is not sought", () => {
  const texts = analyse("ゾンビプロセスを消すにはどうすればいい", library).map(({ text }) => text);
  assert.deepEqual(texts, ["ゾンビプロセス", "消ス"]);
});

test("hiragana that stands alone is a word", () => assert.deepEqual(pages("ぞんび"), ["os/process/"]));
test("any name of a concept finds it", () => assert.deepEqual(pages("zombie process"), ["os/process/"]));
test("a piece of a name finds it", () => assert.deepEqual(pages("イムウェイト"), ["net/tcp/"]));
test("a misspelt name finds it", () => assert.deepEqual(pages("仮装メモリ"), ["os/memory/"]));
test("a heading's English id finds it", () => assert.equal(find("page table")[0][1].location, "os/memory/#page-table"));
test("a tag finds its page", () => assert.deepEqual(pages("L4"), ["net/tcp/"]));
test("nonsense finds nothing", () => assert.deepEqual(pages("海鮮丼 レシピ"), []));

test("hits are marked, and text that looks like HTML is not HTML", () => {
  const [, section] = find("wait")[0];
  assert.match(section.text, /親が<mark>wait<\/mark>しない/);
  assert.match(section.text, /a &lt; b/);
  assert.deepEqual(section.terms, { wait: true });
});

test("a page's group leads with the page and then its best section", () => {
  const [page, section] = find("ページテーブル")[0];
  assert.equal(page.location, "os/memory/");
  assert.equal(section.location, "os/memory/#page-table");
  assert.ok(section.score >= page.score);
});

for (const query of ["", "   ", "の", "はがをに", "(.*[", "\\", "😀", "\ud83d", "\u202eabc", "a".repeat(2000), "仮想".repeat(1000), "%00<script>"])
  test(`${JSON.stringify(query.slice(0, 12))} (${query.length}) is answered without an exception`, () => assert.ok(Array.isArray(find(query))));

test("a long query is read to its limit", () => assert.ok(analyse("ゾンビ".repeat(900), library).length <= LONGEST));
test("an empty index answers nothing", () => assert.deepEqual(find("TCP", new Library([], [])), []));
test("a long word is one concept with and without its long vowels", () => {
  const shelf = new Library([{ location: "fw/", title: "ファイアウォール", text: "" }], [{ spellings: ["ファイアウォール", "ファイヤウォール"], home: "fw/" }]);
  assert.equal(find("ファイヤーウォール", shelf)[0][0].location, "fw/");
});

test("of two sections that say the same, the one that the glossary names stands first", () => {
  const docs = ["a/", "b/"].map((location) => ({ location, title: "節", text: "<p>ページフォルトの話。</p>" }));
  for (const home of ["a/", "b/"]) {
    const shelf = new Library(docs, [{ spellings: ["ページフォルト"], home }]);
    assert.equal(find("ページフォルト", shelf)[0][0].location, home);
  }
});

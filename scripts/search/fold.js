// Folding: what is searched and what is typed pass through here, so that spelling does not matter.
// NFKC, lower case, hiragana as katakana, small kana as large, エイ as エー, separators dropped.

const MARKS = "\u3099\u309a\uff9e\uff9f"; // (semi-)voiced marks that join the letter before
const SEPARATOR = /[\s\-_・·‐-―−]/;
const DASH = /[-‐-―−]/;
const SMALL = new Map([..."ァィゥェォッャュョヮヵヶ"].map((kana, i) => [kana, "アイウエオツヤユヨワカケ"[i]]));
const E_COLUMN = new Set("エケセテネヘメレゲゼデベペ");
const WORD = /[a-z0-9]/;

export const isKana = (letter) => letter >= "ァ" && letter <= "ー";
export const isWord = (letter) => letter !== undefined && WORD.test(letter);

const large = (letter) => {
  const kana = letter >= "ぁ" && letter <= "ゖ" ? String.fromCharCode(letter.charCodeAt(0) + 0x60) : letter;
  return SMALL.get(kana) ?? kana;
};

function clusterEnd(source, start) {
  const code = source.charCodeAt(start);
  let end = start + (code >= 0xd800 && code < 0xdc00 && source.charCodeAt(start + 1) >= 0xdc00 ? 2 : 1);
  while (end < source.length && MARKS.includes(source[end])) end++;
  return end;
}

// A dash between two kana is a long vowel typed with the wrong key.
const isLongVowel = (cluster, before, after) =>
  DASH.test(cluster) && isKana(before) && before !== "ー" && before !== "ン" && isKana(large(after ?? ""));

// Return the folded text and, for each of its letters, where it came from in the source
// (`from`, `to`) and whether an ASCII word begins there (`starts`).
export function fold(source) {
  const folded = { text: "", from: [], to: [], starts: [] };
  let before = "";
  let broken = true;
  const add = (letter, from, to) => {
    const long = letter === "イ" && E_COLUMN.has(before) && !broken;
    folded.starts.push(isWord(letter) && (broken || !isWord(before)));
    before = long ? "ー" : letter;
    folded.text += before;
    folded.from.push(from);
    folded.to.push(to);
    broken = false;
  };
  for (let from = 0, to; from < source.length; from = to) {
    to = clusterEnd(source, from);
    const cluster = source.slice(from, to);
    if (isLongVowel(cluster, before, source[to])) add("ー", from, to);
    else if (SEPARATOR.test(cluster)) broken = true;
    else for (const letter of cluster.normalize("NFKC").toLowerCase()) if (letter !== " ") add(large(letter), from, to);
  }
  return folded;
}

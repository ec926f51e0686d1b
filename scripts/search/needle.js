// A needle: one folded spelling, found anywhere in Japanese and from a word's start in ASCII.

import { isKana, isWord } from "./fold.js";

const special = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

// A long vowel may be missing in the text once three kana stand before it.
function elastic(text) {
  let kana = 0;
  return [...text].map((letter) => (isKana(letter) && kana++ >= 3 && letter === "ー" ? "ー?" : special(letter))).join("");
}

// `whole` asks for the end of a word too: an abbreviation of the glossary is no prefix.
export function needle(text, whole = false) {
  const pattern = elastic(text);
  const loose = pattern.includes("ー?") ? new RegExp(pattern, "g") : null;
  return { text, whole, loose };
}

// The text may write long vowels that the query leaves out: インタプリタ for インタープリター.
export function stretched(text) {
  if (!/^[ァ-ー]{4,}$/.test(text)) return undefined;
  const pattern = [...text].map((letter, i) => (i > 1 ? `${letter}ー?` : letter)).join("");
  return { text, whole: false, loose: new RegExp(pattern, "g") };
}

const fits = (folded, { text, whole }, start, end) =>
  (!isWord(text[0]) || folded.starts[start]) &&
  (!whole || !isWord(text.at(-1)) || !isWord(folded.text[end]) || folded.starts[end]);

// Yield [start, end) of every occurrence.
export function* occurrences(folded, needle) {
  const { text, loose } = needle;
  if (loose) {
    for (const found of folded.text.matchAll(loose)) yield [found.index, found.index + found[0].length];
    return;
  }
  for (let start = folded.text.indexOf(text); start >= 0; start = folded.text.indexOf(text, start + 1))
    if (fits(folded, needle, start, start + text.length)) yield [start, start + text.length];
}

export const contains = (folded, needle) => !occurrences(folded, needle).next().done;

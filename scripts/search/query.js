// What a typed query asks for: terms, each a set of spellings any of which will do.

import { fold } from "./fold.js";
import { nearest } from "./distance.js";
import { needle, stretched } from "./needle.js";

export const LONGEST = 200; // letters read of a query
const KINDS = [["ascii", /[a-z0-9.:/#+@%$=]/], ["kana", /[ァ-ー]/], ["kanji", /[㐀-鿿豈-﫿々〆]/]];
const HIRAGANA = /[ぁ-ゖ]/;
// A word guessed is worth less than a word found.
const GUESSED = 0.6;
const PART = 0.3;

const kindOf = (letter, original) =>
  HIRAGANA.test(original) ? "hiragana" : (KINDS.find(([, letters]) => letters.test(letter))?.[0] ?? "other");

// Cut the folded query into runs of one script; a separator ends a run.
function runsOf(source) {
  const { text, from, to } = fold(source);
  const runs = [];
  [...text].forEach((letter, i) => {
    const kind = letter === "ー" && runs.length ? runs.at(-1).kind : kindOf(letter, source[from[i]].normalize("NFKC"));
    const apart = i > 0 && to[i - 1] < from[i] && /\s/.test(source.slice(to[i - 1], from[i]));
    if (runs.length && runs.at(-1).kind === kind && !apart) runs.at(-1).text += letter;
    else runs.push({ kind, text: letter, apart });
  });
  return runs.filter(({ kind }) => kind !== "other");
}

const term = (text, needles, weight = 1) => ({ text, needles, weight, least: 1 });

// The longest concept that begins with run `first` and ends with a later run, or nothing.
function conceptAt(runs, first, library) {
  let best;
  let text = "";
  for (let last = first; last < runs.length && text.length <= library.longest; last++) {
    text += runs[last].text;
    if (library.concept(text)) best = { text, last };
  }
  return best;
}

// An inflected word is sought by its stem: 増える as 増え, 終了する as 終了.
function stemmed(runs) {
  return runs.flatMap((run, i) => {
    if (run.kind === "hiragana") return [];
    const [before, tail] = [runs[i - 1], runs[i + 1]];
    const short = run.kind === "kanji" && run.text.length === 1 && tail?.kind === "hiragana" && !tail.apart;
    const apart = run.apart || before?.kind === "hiragana";
    return [{ ...run, apart, text: short ? run.text + tail.text[0] : run.text }];
  });
}

// Hiragana is grammar where other words stand beside it, and a word where it stands alone.
function contentOf(runs) {
  const content = stemmed(runs);
  return content.some(({ text, kind }) => text.length > 1 || kind === "kanji") ? content : runs.filter(({ text }) => text.length > 1).slice(0, 8);
}

function known(text, library) {
  const concept = library.concept(text);
  if (concept) return concept;
  const spelling = stretched(text) ?? needle(text);
  return library.knows(spelling) ? [spelling, ...library.around(text)] : undefined;
}

// A compound nobody wrote, of two parts that stand in the text: カーネルパラメータ.
function halves(text, library) {
  if (/[a-z0-9]/.test(text)) return undefined;
  const least = /[ァ-ー]/.test(text) ? 3 : 2;
  for (let cut = text.length - least; cut >= least; cut--) {
    const [left, right] = [text.slice(0, cut), text.slice(cut)].map((half) => known(half, library));
    if (left && right) return [term(text.slice(0, cut), left), term(text.slice(cut), right)];
  }
  return undefined;
}

const pairs = (text) => Array.from({ length: text.length - 1 }, (_, i) => needle(text.slice(i, i + 2)));

function misspelt(text, library) {
  const concept = nearest(text, library.concepts.keys());
  return concept && [term(text, library.concepts.get(concept), GUESSED)];
}

function word(text, library) {
  const found = nearest(text, library.words);
  return found && [term(text, [needle(found)], GUESSED)];
}

function scattered(text) {
  const fits = text.length > 2 && !/[a-z0-9]/.test(text);
  return [{ ...term(text, fits ? pairs(text) : [], GUESSED / 2), least: Math.ceil((text.length - 1) * 0.6) }];
}

function termsOf(text, library) {
  const needles = known(text, library);
  if (needles) return [term(text, needles)];
  return misspelt(text, library) ?? halves(text, library) ?? word(text, library) ?? scattered(text);
}

// Words typed as one, or English ones in a row: with one unknown among them, the whole may be
// a misspelt concept (仮装メモリ, conection refused).
function phrases(runs) {
  const groups = [];
  for (const run of runs) {
    const last = groups.at(-1)?.at(-1);
    const joins = last && (!run.apart || (last.kind === "ascii" && run.kind === "ascii"));
    if (joins) groups.at(-1).push(run);
    else groups.push([run]);
  }
  return groups;
}

function ofPhrase(runs, library) {
  const parts = runs.filter(({ text, kind }) => text.length > 1 || kind === "kanji" || runs.length === 1);
  const whole = runs.map(({ text }) => text).join("");
  const together = runs.length > 1 && known(whole, library);
  if (together) return [term(whole, together), ...parts.flatMap(({ text }) => part(text, library))];
  const unknown = runs.length > 1 && parts.some(({ text }) => !known(text, library));
  return (unknown && misspelt(whole, library)) || parts.flatMap(({ text }) => termsOf(text, library));
}

// Parts of a phrase that stands in the text count less than the phrase.
const part = (text, library) => [known(text, library)].filter(Boolean).map((needles) => term(text, needles, PART));

const restOf = (runs, library) => phrases(contentOf(runs)).flatMap((group) => ofPhrase(group, library));

// Return the terms of a query, in order.
export function analyse(query, library) {
  const runs = runsOf(query.slice(0, LONGEST));
  const terms = [];
  let rest = [];
  const flush = () => terms.push(...(rest.length ? restOf(rest, library) : []));
  for (let i = 0; i < runs.length; i++) {
    const concept = conceptAt(runs, i, library);
    if (!concept) {
      rest.push(runs[i]);
      continue;
    }
    // grammar beside a concept is never a word of its own
    rest = rest.filter(({ kind }) => kind !== "hiragana" || rest.some((run) => run.kind !== "hiragana"));
    flush();
    rest = [];
    terms.push(term(concept.text, library.concept(concept.text)));
    i = concept.last;
  }
  rest = terms.length ? rest.filter(({ kind }, i) => kind !== "hiragana" || i > 0) : rest;
  flush();
  return terms;
}

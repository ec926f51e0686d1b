// Ranking: rare terms, often and in short sections, titles first, all terms before some.

import { occurrences } from "./needle.js";

const TITLE = 6; // a hit in a title counts as this many in the text
const PAGE = 1.5; // a hit in the page's title, for each of its sections
const SATURATION = 1.2; // BM25's k1
const LENGTH = 0.3; // BM25's b
const ENOUGH = 0.4; // share of a query, by weight, that a section must answer
const UNKNOWN = 0.5; // weight of a word that stands nowhere
const PHRASE = 0.5;
const LITERAL = 0.5;
const HOME = 1; // the section that the glossary names for a concept

const count = (folded, needles, least) => {
  const counts = needles.map((needle) => [...occurrences(folded, needle)].length);
  return counts.filter(Boolean).length >= least ? Math.max(0, ...counts) : 0;
};

function hitsOf(section, { needles, least }) {
  const head = count(section.head, needles, least);
  return { head, body: count(section.body, needles, least) };
}

function frequency({ head, body }, page, length) {
  const hits = body + TITLE * head + (body || head ? PAGE * Math.min(page.head, 1) : 0);
  return hits / (hits + SATURATION * (1 - LENGTH + LENGTH * length));
}

const idf = (total, holding) => Math.log(1 + (total - holding + 0.5) / (holding + 0.5));

// Terms side by side in the order they were typed.
function adjacent(section, terms) {
  let bonus = 0;
  for (let i = 1; i < terms.length; i++) {
    const [left, right] = [terms[i - 1], terms[i]].map(({ needles }) => needles[0]?.text);
    const joined = left && right && left + right;
    if (joined && section.head.text.includes(joined)) bonus += 2 * PHRASE;
    else if (joined && section.body.text.includes(joined)) bonus += PHRASE;
  }
  return bonus;
}

// What was typed, letter for letter, where another name would do as well.
const literal = (section, { text, needles }) =>
  needles.length > 1 && (section.body.text.includes(text) || section.head.text.includes(text));

const isHome = (section, { needles }, library) => library.homes.get(needles) === section.location;

const isTitle = (section, terms) =>
  terms.some(({ needles }) => needles.some(({ text }) => section.head.text.split("/")[0] === text));

function weigh(terms, hits, total) {
  return terms.map((term, t) => {
    const holding = hits.filter((found) => found[t].head || found[t].body).length;
    return term.weight * idf(total, holding) * (holding ? 1 : UNKNOWN);
  });
}

// Return [{section, score}] for the sections that answer enough of the query.
export function rank(terms, library) {
  const { sections, length } = library;
  const hits = sections.map((section) => terms.map((term) => hitsOf(section, term)));
  const weights = weigh(terms, hits, sections.length);
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  const share = (found) => weights.reduce((sum, weight, t) => sum + (found[t].head || found[t].body ? weight : 0), 0) / whole;
  return sections
    .map((section, s) => {
      const coverage = share(hits[s]);
      if (coverage < ENOUGH) return { section, score: 0 };
      const page = hits[section.page];
      const relative = section.body.text.length / (length || 1);
      const sum = weights.reduce((all, weight, t) => all + weight * frequency(hits[s][t], page[t], relative), 0);
      const typed = weights.reduce((all, weight, t) => all + (literal(section, terms[t]) ? weight * LITERAL : 0), 0);
      const home = weights.reduce((all, weight, t) => all + (isHome(section, terms[t], library) ? weight * HOME : 0), 0);
      const bonus = adjacent(section, terms) + typed + home + (isTitle(section, terms) ? weights[0] : 0);
      return { section, score: (sum + bonus) * coverage ** 2 * section.boost };
    })
    .filter(({ score }) => score > 0);
}

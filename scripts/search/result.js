// Results as Material's search UI shows them: by page, best section first, hits marked.

import { fold } from "./fold.js";
import { occurrences } from "./needle.js";
import { escape } from "./prose.js";

const PAGES = 30; // pages shown
const FADING = 0.3; // of a page's sections, each counts as this much of the one before
const SHOWN = 0.5; // a section this near to the page's best is not folded away
const TEASER = 160; // letters of a section's text
const LEAD = 40; // of which before the first hit

// Return the [start, end) of all hits in the source text, in order and apart.
function rangesOf(source, terms) {
  const folded = fold(source);
  const found = terms.flatMap(({ needles }) => needles.flatMap((needle) => [...occurrences(folded, needle)]));
  const ranges = found.map(([start, end]) => [folded.from[start], folded.to[end - 1]]).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  return ranges.filter(([start], i) => i === 0 || start >= Math.max(...ranges.slice(0, i).map(([, end]) => end)));
}

function marked(source, ranges, from = 0, to = source.length) {
  let html = "";
  let at = from;
  for (const [start, end] of ranges) {
    if (start < at || end > to) continue;
    html += `${escape(source.slice(at, start))}<mark>${escape(source.slice(start, end))}</mark>`;
    at = end;
  }
  return html + escape(source.slice(at, to));
}

// Where the most hits stand close together.
function window_(ranges) {
  const near = ranges.map(([start]) => ranges.filter(([other]) => other >= start && other < start + TEASER - LEAD).length);
  return ranges[near.indexOf(Math.max(...near))][0];
}

function teaser(text, ranges) {
  const from = ranges.length ? Math.max(0, window_(ranges) - LEAD) : 0;
  const to = Math.min(text.length, from + TEASER);
  return `${from ? "…" : ""}${marked(text, ranges, from, to)}${to < text.length ? "…" : ""}`;
}

function termsFound(section, ranges, terms) {
  const found = ranges.map(([start, end]) => section.text.slice(start, end));
  const missing = terms.filter(({ needles }) => !needles.length).map(({ text }) => text);
  return Object.fromEntries([...missing.map((text) => [text, false]), ...found.slice(0, 20).map((text) => [text, true])]);
}

function item({ section, score }, terms) {
  const ranges = rangesOf(section.text, terms);
  return {
    location: section.location,
    title: marked(section.title, rangesOf(section.title, terms)),
    text: teaser(section.text, ranges),
    ...(section.tags && !section.location.includes("#") && { tags: section.tags }),
    score,
    terms: termsFound(section, ranges, terms),
  };
}

// A page's own article leads its group; its score says which sections the UI leaves open.
function groupItems(page, found, terms) {
  const sections = found.filter(({ section }) => section !== page).sort((a, b) => b.score - a.score);
  const own = found.find(({ section }) => section === page)?.score ?? 0;
  const best = found[0].score;
  const article = { section: page, score: own === best ? own : best * SHOWN };
  return [article, ...sections].map((entry) => item(entry, terms));
}

// A page that speaks of it in many sections stands before one that mentions it once.
const weight = (found) => found.reduce((sum, { score }, i) => sum + score * FADING ** i, 0);

export function results(ranked, terms, library) {
  const pages = Map.groupBy(ranked.sort((a, b) => b.score - a.score), ({ section }) => section.page);
  const ordered = [...pages].sort(([, a], [, b]) => weight(b) - weight(a));
  return ordered.slice(0, PAGES).map(([page, found]) => groupItems(library.sections[page], found, terms));
}

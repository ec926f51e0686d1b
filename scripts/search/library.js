// The library: all sections, folded, with the glossary's concepts and the words that stand in it.

import { fold } from "./fold.js";
import { contains, needle } from "./needle.js";
import { textOf } from "./prose.js";

const WORDS = /[a-z0-9][a-z0-9.]{2,}|[ァ-ー]{3,}/g;

function section(doc, page) {
  const [title, text] = [textOf(doc.title), textOf(doc.text)];
  const lean = ({ text, starts }) => ({ text, starts });
  // heading ids are English: who asks in English finds them too
  const id = doc.location.split("#")[1] ?? "";
  const head = lean(fold([title, id, ...(doc.tags ?? [])].join(" / ")));
  const boost = doc.boost ?? 1;
  return { location: doc.location, title, text, tags: doc.tags, page, boost, head, body: lean(fold(text)) };
}

// Sections follow their page; `page` is the index of the page's own article.
function sections(docs) {
  const pages = new Map();
  return docs.map((doc, index) => {
    const address = doc.location.split("#")[0];
    if (!pages.has(address)) pages.set(address, index);
    return section(doc, pages.get(address));
  });
}

const needlesOf = (spellings) =>
  [...new Set(spellings.map((spelling) => fold(spelling).text))].map((text) => needle(text, true));

// Each concept is the list of its needles, found by any of its spellings; its home is the
// section that explains it.
function concepts(glossary) {
  const [found, homes] = [new Map(), new Map()];
  for (const { spellings, home } of glossary) {
    const needles = needlesOf(spellings);
    homes.set(needles, home);
    for (const { text } of needles) if (text.length > 1 && !found.has(text)) found.set(text, needles);
  }
  return { found, homes };
}

// Long words are the same with and without their long vowels: ファイアウォール, ファイアーウォール.
const PLAIN = 5;
const plain = (text) => text.replaceAll("ー", "");

export class Library {
  constructor(docs, glossary) {
    const { found, homes } = concepts(glossary);
    this.sections = sections(docs);
    this.concepts = found;
    this.homes = homes;
    this.plain = new Map([...this.concepts].map(([text, needles]) => [plain(text), needles]));
    this.longest = Math.max(0, ...[...this.concepts.keys()].map((text) => text.length));
    this.length = this.sections.reduce((sum, { body }) => sum + body.text.length, 0) / (this.sections.length || 1);
  }

  // Words of the text and spellings of the glossary: where a misspelt word may belong.
  get words() {
    this._words ??= new Set(this.sections.flatMap(({ head, body }) => `${head.text} ${body.text}`.match(WORDS) ?? []));
    return this._words;
  }

  concept(text) {
    return this.concepts.get(text) ?? (plain(text).length < PLAIN ? undefined : this.plain.get(plain(text)));
  }

  // Concepts of which the text is a part, as when someone stops typing; none when it fits many.
  around(text) {
    const found = new Set();
    if (text.length > 2) for (const [spelling, needles] of this.concepts) if (spelling.includes(text)) found.add(needles);
    return found.size < 4 ? [...found].flat() : [];
  }

  knows(sought) {
    return this.sections.some(({ head, body }) => contains(head, sought) || contains(body, sought));
  }
}

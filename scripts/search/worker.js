// The search worker behind Material's search box. Its protocol: {type, data} messages,
// 0 set up, 1 ready, 2 query, 3 result. The index is fetched when someone first types.

import { Library } from "./library.js";
import { analyse } from "./query.js";
import { rank } from "./rank.js";
import { results } from "./result.js";

const [SETUP, READY, QUERY, RESULT] = [0, 1, 2, 3];
const BROKEN = { title: "検索の索引を読み込めませんでした", text: "通信を確かめて、このページを再読み込みしてください。", location: "", score: 1, terms: {} };
let open; // gives the library, once asked
let asked = 0;

async function fetched(address) {
  const response = await fetch(new URL(address, self.location));
  if (!response.ok) throw new Error(`${response.status} ${address}`);
  return response.json();
}

// An offline site carries the whole index with the page; a published one only its address.
function librarian({ config, docs }) {
  let library;
  const load = async () => (config.index ? await fetched(config.index) : { docs, glossary: config.glossary });
  return () => {
    library ??= load().then(({ docs, glossary }) => new Library(docs, glossary));
    library.catch(() => (library = undefined));
    return library;
  };
}

function answer(query, library) {
  const terms = analyse(query, library);
  return terms.length ? results(rank(terms, library), terms, library) : [];
}

async function ask(query) {
  const turn = ++asked;
  const items = query.trim() ? await open().then((library) => answer(query, library), () => [[BROKEN]]) : [];
  if (turn === asked) self.postMessage({ type: RESULT, data: { items } });
}

self.addEventListener("message", ({ data: { type, data } }) => {
  if (type === SETUP) {
    open = librarian(data);
    self.postMessage({ type: READY });
  } else if (type === QUERY) ask(data);
});

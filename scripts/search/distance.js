// How many slips of the finger lie between two words (optimal string alignment, Damerau 1964).

const LIMITS = [[8, 2], [3, 1], [0, 0]];

// Longer words may carry more slips.
export const slips = (length) => LIMITS.find(([least]) => length >= least)[1];

// Return the distance, or Infinity once it is more than `limit`.
export function distance(a, b, limit) {
  if (Math.abs(a.length - b.length) > limit) return Infinity;
  let older = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j], older[j - 2] + 1);
    }
    if (Math.min(...row) > limit) return Infinity;
    [older, last] = [last, row];
  }
  return last[b.length] <= limit ? last[b.length] : Infinity;
}

// Return the nearest of the candidates that share a first or last letter, or undefined.
export function nearest(word, candidates) {
  let best;
  let limit = slips(word.length);
  for (const candidate of candidates) {
    if (candidate[0] !== word[0] && candidate.at(-1) !== word.at(-1)) continue;
    const found = limit ? distance(word, candidate, limit) : Infinity;
    if (found > limit || (best && found === limit && candidate.length >= best.length)) continue;
    [best, limit] = [candidate, found];
  }
  return best;
}

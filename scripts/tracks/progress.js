// What a reader has done of a track: kept in this browser, carried in a file.

const VERSION = 1;

/** A file that carries no progress of this track; the message is in the reader's words. */
export class Unreadable extends Error {}

const place = (track) => `infra-notes.track.${track}`;

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

const listed = (value) => Array.isArray(value) && value.every((step) => typeof step === "string");

/** Return the steps that are done; none where the browser keeps nothing. */
export const load = (storage, track) => {
  const kept = parsed(storage?.getItem(place(track)));
  return new Set(listed(kept) ? kept : []);
};

/** Keep the steps that are done. */
export const save = (storage, track, done) =>
  storage?.setItem(place(track), JSON.stringify([...done]));

/** Return the text of a file that carries the progress to another browser. */
export const toFile = (track, done) =>
  JSON.stringify({ infraNotesTrack: VERSION, track, done: [...done].sort() }, null, 2);

/** Return the steps that a file says are done; throw `Unreadable` when it is of something else. */
export const fromFile = (text, track) => {
  const file = parsed(text);
  if (file?.infraNotesTrack !== VERSION || !listed(file.done))
    throw new Unreadable("進み具合のファイルではありません");
  if (file.track !== track) throw new Unreadable(`別のトラック（${file.track}）のファイルです`);
  return new Set(file.done);
};

/** Return how far a reader is: { steps, done, minutes left }. */
export const standing = (steps, done) => ({
  steps: steps.length,
  done: steps.filter(({ key }) => done.has(key)).length,
  left: steps.filter(({ key }) => !done.has(key)).reduce((sum, { minutes }) => sum + minutes, 0),
});

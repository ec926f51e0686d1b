// A track's page: boxes that stay ticked, a bar that shows how far one is.

import { Unreadable, fromFile, load, save, standing, toFile } from "./progress.js";

const root = document.querySelector(".track");
const track = root.dataset.track;
const boxes = [...root.querySelectorAll("input[data-step]")];
const steps = boxes.map(({ dataset }) => ({ key: dataset.step, minutes: Number(dataset.minutes) }));

// Browsers that keep nothing (private windows, blocked storage) still show the boxes.
const storage = (() => {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
})();
let done = load(storage, track);

const BOARD = `
  <p class="track__bar">
    <progress aria-label="進み具合"></progress> <span data-part="told" role="status"></span>
  </p>
  <p class="track__actions">
    <button type="button" data-action="save">進み具合を書き出す</button>
    <label class="track__file">進み具合を読み込む
      <input type="file" accept="application/json,.json" data-part="file"></label>
    <button type="button" data-action="reset">最初から</button>
  </p>
  <p class="track__problem" role="alert" data-part="problem"></p>
  <p class="track__note">進み具合は、このブラウザーの中だけに残ります。どこにも送りません。</p>`;

const board = root.querySelector("[data-part=board]");
board.innerHTML = BOARD;
board.hidden = false;
const part = (name) => board.querySelector(`[data-part=${name}]`);

const show = () => {
  for (const box of boxes) box.checked = done.has(box.dataset.step);
  const now = standing(steps, done);
  Object.assign(board.querySelector("progress"), { max: now.steps, value: now.done });
  part("told").textContent = `${now.steps}項目のうち${now.done}項目、残り約${now.left}分`;
};

const change = (next) => {
  done = next;
  part("problem").textContent = "";
  save(storage, track, done);
  show();
};

const tick = ({ target }) => {
  if (!target.dataset?.step) return;
  const next = new Set(done);
  next[target.checked ? "add" : "delete"](target.dataset.step);
  change(next);
};

const ACTIONS = {
  save: () => {
    const file = new Blob([toFile(track, done)], { type: "application/json" });
    const address = URL.createObjectURL(file);
    const name = `infra-notes-${track}.json`;
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    URL.revokeObjectURL(address);
  },
  reset: () => change(new Set()),
};

const take = async (input) => {
  try {
    change(fromFile(await input.files[0].text(), track));
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    part("problem").textContent = error.message;
  }
  input.value = "";
};

root.addEventListener("change", tick);
board.addEventListener("click", ({ target }) => ACTIONS[target.dataset.action]?.());
part("file").addEventListener("change", ({ target }) => take(target));
show();

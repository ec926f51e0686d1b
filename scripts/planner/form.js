// The planner's form: what is typed becomes a plan, a table and an address to share.

import { Unreadable, read } from "./network.js";
import { plan } from "./plan.js";
import * as shared from "./shared.js";
import * as table from "./table.js";

const form = document.querySelector("form.planner");
const STEP = { hosts: [1, 16777214], growth: [1, 100], spare: [0, 300] };

/** A field that cannot be used, and why, in the reader's words. */
class Refused extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

const refusing = (field, act) => {
  try {
    return act();
  } catch (error) {
    throw error instanceof Unreadable ? new Refused(field, error.message) : error;
  }
};

const number = (field, kind) => {
  const [least, most] = STEP[kind];
  const good = field.value.trim() !== "" && field.value >= least && field.value <= most;
  if (!good) throw new Refused(field, `${least}〜${most}の数を入れてください`);
  return Number(field.value);
};

const whole = (field, kind) => {
  const value = number(field, kind);
  if (!Number.isInteger(value)) throw new Refused(field, "整数を入れてください");
  return value;
};

const unique = (field, all) => {
  const twice = all.find((name, at) => all.indexOf(name) !== at);
  if (twice) throw new Refused(field, `「${twice}」が2つあります`);
  return all;
};

const rowsOfNeeds = () => [...form.querySelectorAll("[data-need]")];

const fieldOf = (row, name) => row.querySelector(`[data-field=${name}]`);

const need = (row) => ({
  name: fieldOf(row, "name").value.trim() || "名前のない用途",
  hosts: whole(fieldOf(row, "hosts"), "hosts"),
  growth: number(fieldOf(row, "growth"), "growth"),
});

const block = (field, family) =>
  field.value.trim() ? [refusing(field, () => read(field.value, family))] : [];

const blocks = ({ v4, v6 }) => {
  const both = [...block(v4, 4), ...block(v6, 6)];
  if (!both.length) throw new Refused(v4, "IPv4かIPv6のブロックを入れてください");
  return both;
};

const levels = (fields) =>
  [fields.sites, fields.envs]
    .map((field) => unique(field, shared.split(field.value)))
    .filter((names) => names.length);

const wanted = (fields) => ({
  blocks: blocks(fields),
  levels: levels(fields),
  needs: rowsOfNeeds().map(need),
  spare: whole(fields.spare, "spare"),
  place: fields.place.value,
});

const typed = (fields) => ({
  v4: fields.v4.value,
  v6: fields.v6.value,
  place: fields.place.value,
  sites: fields.sites.value,
  envs: fields.envs.value,
  spare: fields.spare.value,
  needs: rowsOfNeeds().map((row) => ({
    name: fieldOf(row, "name").value,
    hosts: fieldOf(row, "hosts").value,
    growth: fieldOf(row, "growth").value,
  })),
});

const refill = (row, values) => {
  for (const name of ["name", "hosts", "growth"]) fieldOf(row, name).value = values[name] ?? "";
  return row;
};

const fill = ({ needs, ...fields }) => {
  for (const [name, value] of Object.entries(fields))
    if (form.elements[name]) form.elements[name].value = value;
  const [first] = rowsOfNeeds();
  const rows = needs.map((values) => refill(first.cloneNode(true), values));
  if (rows.length) first.parentElement.replaceChildren(...rows);
};

const element = (name, text, attributes = {}) =>
  Object.assign(document.createElement(name), { textContent: text }, attributes);

const bodyRow = ({ kind, cells }) => {
  const row = element("tr", "", { className: `planner-${kind}` });
  const [place, ...others] = cells;
  row.append(element("th", place, { scope: "row" }), ...others.map((cell) => element("td", cell)));
  return row;
};

const say = (text) => {
  form.querySelector("[data-part=said]").textContent = text;
};

const clear = () => {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
};

const refuse = ({ field, message }) => {
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", "planner-problem");
  const label = field.getAttribute("aria-label") ?? field.labels[0].textContent.trim();
  return `${label}: ${message}`;
};

let rows = [];

const compute = () => {
  const asked = wanted(form.elements);
  const { v4, v6 } = form.elements;
  const trees = refusing(v4.value.trim() ? v4 : v6, () => plan(asked));
  return table.rows(trees, asked.place);
};

const attempt = () => {
  try {
    rows = compute();
    return "";
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    rows = [];
    return refuse(error);
  }
};

const show = () => {
  clear();
  const problem = attempt();
  form.querySelector("[data-part=problem]").textContent = problem;
  form.querySelector("tbody[data-part=rows]").replaceChildren(...rows.map(bodyRow));
  form.querySelector("[data-part=result]").hidden = !rows.length;
  const subnets = rows.filter(({ kind }) => kind === "subnet").length;
  say(rows.length ? `${subnets}個のサブネットに分けました` : "");
};

const remember = () => history.replaceState(history.state, "", shared.write(typed(form.elements)));

const copy = async (text, said) => {
  try {
    await navigator.clipboard.writeText(text);
    say(said);
  } catch {
    say("ブラウザーが、コピーを許しませんでした");
  }
};

const save = () => {
  const file = new Blob(["\ufeff", table.csv(rows)], { type: "text/csv" });
  const link = element("a", "", { href: URL.createObjectURL(file), download: "address-plan.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
  say("CSVを保存しました");
};

const add = () => {
  const last = rowsOfNeeds().at(-1);
  const row = refill(last.cloneNode(true), { name: "", hosts: "10", growth: "2" });
  last.after(row);
  fieldOf(row, "name").focus();
};

const remove = (button) => {
  if (rowsOfNeeds().length > 1) button.closest("[data-need]").remove();
  fieldOf(rowsOfNeeds().at(-1), "name").focus();
};

const ACTIONS = {
  add,
  remove,
  save,
  markdown: () => copy(table.markdown(rows), "表をコピーしました"),
  share: () => {
    remember();
    return copy(location.href, "この計画のURLをコピーしました");
  },
};

const press = (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  ACTIONS[button.dataset.action](button);
  if (!["add", "remove"].includes(button.dataset.action)) return;
  remember();
  show();
};

const start = () => {
  const carried = shared.read(location.hash);
  if (carried) fill(carried);
  form.hidden = false;
  document.querySelector(".planner-fallback").hidden = true;
  show();
};

form.addEventListener("input", () => (remember(), show()));
form.addEventListener("click", press);
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => form.isConnected && start());
start();

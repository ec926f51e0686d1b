// A plan as an address that a team can share, after the #: no server sees it.

const VERSION = "1";
export const split = (text) =>
  text
    .split(/[,、]/)
    .map((name) => name.trim())
    .filter(Boolean);

const need = (text) => {
  const [hosts, growth, ...name] = text.split("*");
  return { name: name.join("*"), hosts, growth };
};

/** Return the fragment of a form's fields; all of them are text, as they were typed. */
export const write = ({ needs, ...fields }) => {
  const query = new URLSearchParams({ plan: VERSION, ...fields });
  for (const { name, hosts, growth } of needs)
    query.append("need", [hosts, growth, name].join("*"));
  return `#${query}`;
};

/** Return the fields that a fragment carries, or null when it carries no plan. */
export const read = (fragment) => {
  const query = new URLSearchParams(fragment.replace(/^#/, ""));
  if (query.get("plan") !== VERSION) return null;
  const needs = query.getAll("need").map(need);
  const { plan, need: _, ...fields } = Object.fromEntries(query);
  return { ...fields, needs };
};

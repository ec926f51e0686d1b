// Runs in headless Chromium: draws each job with Mermaid and hands back a lean SVG.

const ID = "DGID"; // replaced by the page's own id when the SVG is placed
const { config, jobs } = JSON.parse(document.getElementById("jobs").textContent);
mermaid.initialize(config);

const parses = async (source) =>
  Boolean(await mermaid.parse(source, { suppressErrors: true }).catch(() => false));

// The line (from 0) without which the diagram would draw, nearest to the reported one.
async function culprit(source, reported) {
  const lines = source.split("\n");
  const near = lines.map((_, i) => i).sort((a, b) => Math.abs(a - reported) - Math.abs(b - reported) || b - a);
  for (const i of near) {
    const rest = lines.map((line, j) => (i === j ? "" : line)).join("\n");
    if (lines[i].trim() && (await parses(rest))) return i;
  }
  return Math.min(Math.max(reported, 0), lines.length - 1);
}

// Mermaid counts after comments and front matter are gone: blank comments keep the count.
const countable = (source) => source.replace(/^[ \t]*%%(?!\{).*$/gm, "");

function declarations(style) {
  const unwanted = [...style].filter((name) => /^(font-family|filter|animation|cursor|--)/.test(name));
  unwanted.forEach((name) => style.removeProperty(name));
  return style.cssText;
}

const matching = (svg, selector) => {
  try {
    return [svg, ...svg.querySelectorAll("*")].filter((node) => node.matches(selector));
  } catch {
    return [];
  }
};

// Keep a rule only for the selectors that match; one that leans on inner ids is inlined.
function leanRule(svg, rule) {
  const css = declarations(rule.style);
  const selectors = rule.selectorText.split(/,(?![^(]*\))/).map((text) => text.trim());
  const used = selectors.filter((text) => css && matching(svg, text).length);
  const byId = used.filter((text) => /\[id|#.*#/.test(text));
  for (const node of byId.flatMap((text) => matching(svg, text))) node.style.cssText += css;
  const kept = used.filter((text) => !byId.includes(text));
  return kept.length ? `${kept.join(",")}{${css}}` : "";
}

function leanStyle(svg) {
  const style = svg.querySelector("style");
  const rules = [...(style?.sheet.cssRules ?? [])].filter((rule) => rule instanceof CSSStyleRule);
  const css = rules.map((rule) => leanRule(svg, rule)).join("");
  svg.querySelectorAll("style").forEach((node) => node.remove());
  return css;
}

// Ids that something points at are renumbered; all others go.
function renumber(svg) {
  const markup = svg.outerHTML;
  const wanted = new Set([...markup.matchAll(/(?:url\(&quot;|url\(|href=")#([^")&]+)/g)].map((m) => m[1]));
  const names = new Map();
  for (const node of svg.querySelectorAll("[id]")) {
    if (wanted.has(node.id)) names.set(node.id, `${ID}-${names.size + 1}`);
    else node.removeAttribute("id");
  }
  for (const node of svg.querySelectorAll("[id]")) node.id = names.get(node.id);
  for (const node of svg.querySelectorAll("*"))
    for (const { name, value } of [...node.attributes])
      if (/#/.test(value) && /^(marker|href|xlink:href|clip-path|fill|mask)/.test(name))
        node.setAttribute(name, value.replace(/#([^")]+)/g, (whole, id) => (names.has(id) ? `#${names.get(id)}` : whole)));
}

function prune(svg) {
  svg.querySelectorAll("filter, title, desc, symbol").forEach((node) => node.remove());
  const pointed = svg.outerHTML;
  svg.querySelectorAll("marker").forEach((node) => pointed.includes(`#${node.id})`) || node.remove());
  svg.querySelectorAll("rect:not([width]), defs:empty, g:empty").forEach((node) => node.remove());
  for (const node of svg.querySelectorAll("*"))
    for (const { name, value } of [...node.attributes])
      if (/^(data-|name$|font-family$|filter$|aria-)/.test(name) || (/^(style|class)$/.test(name) && !value.trim()))
        node.removeAttribute(name);
  svg.querySelectorAll("[style]").forEach((node) => {
    declarations(node.style);
    if (!node.getAttribute("style")) node.removeAttribute("style");
  });
}

// Mermaid leaves the labels of states at the left edge when they are SVG text: centre them.
function centreStates(svg) {
  if (!svg.classList.contains("statediagram")) return;
  for (const label of svg.querySelectorAll(".node > .label")) {
    label.setAttribute("transform", label.getAttribute("transform").replace(/\(\s*[-\d.]+/, "(0"));
    label.querySelectorAll("text").forEach((text) => text.setAttribute("text-anchor", "middle"));
  }
}

const smallestText = (svg) =>
  Math.min(...[...svg.querySelectorAll("text, foreignObject *")]
    .filter((node) => node.textContent.trim())
    .map((node) => parseFloat(getComputedStyle(node).fontSize)));

function lean(markup, id) {
  document.getElementById("easel").innerHTML = markup;
  const svg = document.querySelector("#easel svg");
  const { width, height } = svg.viewBox.baseVal;
  centreStates(svg);
  const text = smallestText(svg);
  prune(svg);
  const css = leanStyle(svg);
  renumber(svg);
  const inner = new XMLSerializer().serializeToString(svg).replace(/^<svg[^>]*>|<\/svg>$/g, "");
  const kind = svg.getAttribute("class") ?? "";
  return { inner, css: css.replaceAll(`#${id}`, `#${ID}`), kind, viewBox: svg.getAttribute("viewBox"), width, height, text };
}

async function draw(source, index) {
  const id = `dg${index}`;
  const text = countable(source);
  try {
    return lean((await mermaid.render(id, text)).svg, id);
  } catch (error) {
    const said = String(error.message ?? error);
    const reported = error.hash?.line ?? Number(/line:? (\d+)/.exec(said)?.[1] ?? 1) - 1;
    return { error: said, line: await culprit(text, reported) };
  }
}

const drawn = [];
for (const [index, source] of jobs.entries()) drawn.push(await draw(source, index));
const result = document.getElementById("drawn");
const bytes = new TextEncoder().encode(JSON.stringify(drawn));
result.textContent = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

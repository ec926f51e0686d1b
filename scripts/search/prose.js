// The text a reader sees in a section's HTML.

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", nbsp: " " };
const BLOCK = /<\/?(?:p|li|ul|ol|div|td|th|tr|table|pre|dd|dt|h[1-6]|br|summary|details|blockquote)\b[^>]*>/g;

export const textOf = (html) =>
  html
    .replace(BLOCK, " ")
    .replace(/<[^>]*>/g, "")
    .replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (_, name) => ENTITIES[name])
    .replace(/[\s\u00b6]+/g, " ")
    .trim();

export const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

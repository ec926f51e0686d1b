"""Draw the Mermaid fences of the Markdown as inline SVG when the site is built."""

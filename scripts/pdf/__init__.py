"""The whole site as one PDF: A4, a table of contents with page numbers, links that work."""

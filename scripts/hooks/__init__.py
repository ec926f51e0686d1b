"""MkDocs hooks, one per concern; each can be deleted with its line in mkdocs.yml."""

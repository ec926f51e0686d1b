"""The site for programs: a catalogue in JSON, its schema, Markdown copies and llms.txt."""

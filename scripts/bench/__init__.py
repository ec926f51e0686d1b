"""Measure this site against the same Markdown under stock Material, in one run."""

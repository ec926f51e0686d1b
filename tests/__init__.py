"""Tests: every promise of the site, and for each a bad input that shows it can fail."""

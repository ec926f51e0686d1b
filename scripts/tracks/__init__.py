"""Onboarding tracks: one YAML file from which pages, checklists and forms are made."""

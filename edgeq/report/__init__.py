"""Figures for people and programs: one Document, spelt for the terminal, Markdown and HTML; and JSON."""

"""Saga definitions as YAML: parsing, types, expressions, lint."""

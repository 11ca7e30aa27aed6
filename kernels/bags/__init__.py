"""Indexed work: gathers and embedding bags."""

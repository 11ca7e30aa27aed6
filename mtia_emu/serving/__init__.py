"""Requests over time on a machine, by its step table."""

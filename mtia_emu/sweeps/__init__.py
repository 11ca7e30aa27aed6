"""Sweeps: many chips over several models, on every core or a cluster, resumable, with pictures."""

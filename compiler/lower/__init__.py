"""A graph becomes a program: steps, places, waves, prefetching, commands."""

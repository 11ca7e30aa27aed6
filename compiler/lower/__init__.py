"""A graph becomes a program: steps, launches side by side, places, prefetching, commands."""

"""Work on rows: tapes, the kernels that run them, and what a core does alone."""

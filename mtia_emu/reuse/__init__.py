"""Results and choices that are used again: in memory between like chips, and on disk between runs."""

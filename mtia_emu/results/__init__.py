"""What comes of a run, as plain data: reports, comparisons, explanations."""

"""The three readings of a program: values, times, energy; and the run that joins them."""

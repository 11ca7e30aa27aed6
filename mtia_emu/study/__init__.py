"""What one asks of a run: why it takes its time, which layer is wrong, what a parameter is worth."""

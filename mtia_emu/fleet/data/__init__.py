"""Published inputs: a CSV file each, every row with its source and status."""

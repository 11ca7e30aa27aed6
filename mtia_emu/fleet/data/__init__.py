"""Published inputs: CSV files, every row with its source and status; `grids.csv` has those of hours."""

"""Files of every kind that the tool reads, changed to do harm: `make fuzz-files`."""

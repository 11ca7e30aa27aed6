"""Published inputs of fleets, each row with its source."""

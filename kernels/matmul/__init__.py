"""Matrix products: mappings, what they ask of the chip, which is taken, and their commands."""

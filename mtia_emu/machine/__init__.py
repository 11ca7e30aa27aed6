"""Hardware as data: a chip, its units with their rules, DRAM devices, and the chips that we ship."""

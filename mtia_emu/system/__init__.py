"""Many chips: what a system of them is, how its links share, what collectives cost and give."""

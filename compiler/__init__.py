"""How a model becomes a program: graph, ops, frontend, passes, scheduling, placement, emission."""

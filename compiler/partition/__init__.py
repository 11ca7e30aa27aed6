"""A model over many ranks: a mesh of named axes, a layout for each value, and a graph for each rank."""

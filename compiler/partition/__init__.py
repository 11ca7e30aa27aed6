"""One graph over many ranks: layouts of values on a mesh, collectives where they differ, a graph a rank."""

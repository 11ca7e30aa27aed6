"""How ops become steps: a view where one will do, else the call of a kernel."""

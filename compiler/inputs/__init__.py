"""Inputs for a graph: what they stand for, what is lawful, values that break what is made of them."""

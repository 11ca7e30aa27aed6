"""Attention as one kernel: plans, their cost, and the commands."""

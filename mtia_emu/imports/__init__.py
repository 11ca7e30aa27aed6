"""Machines and work of other simulators, read without trusting them and written as ours."""

"""Small faults planted in the product, one at a time, each to be noticed by the tests that stand nearest."""

"""The hardware units, one file each: parameters, timing rules, values."""

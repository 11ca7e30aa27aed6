"""The libraries of collectives that ship, one TOML file each."""

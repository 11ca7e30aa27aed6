"""The systems that ship, one TOML file each."""

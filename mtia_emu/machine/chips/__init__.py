"""The chips that ship with the product, one TOML file each."""

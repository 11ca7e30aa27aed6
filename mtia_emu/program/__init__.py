"""The language between compiler and engine: commands, blocks, launches, their law and their file."""

"""`python -m mtia_emu.cli`: the command line without its script."""

from .start import main

main()

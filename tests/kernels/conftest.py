"""Makes the harness, and `tiny` of the engine's tests, importable: test modules are no package."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "engine")]

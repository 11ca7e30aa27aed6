"""Makes `blocks` and the harness of the kernels importable: test modules are no package."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "kernels")]

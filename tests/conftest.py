"""What many tests need: the command line in this process, and the collection of exported models.

How hypothesis searches, and what the processes that tests start inherit, is set here and nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

# No example fails for the time that it takes: a machine may be slow or busy. `make test` gives the same ones
# each time, `make test-deep` looks for others.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
settings.register_profile("deep", settings.get_profile("steady"), derandomize=False, print_blob=True)
settings.load_profile("steady")

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # whoever imports it
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each test has one core; threads that wait for another burn it
os.environ["MTIA_EMU_ANSWERS"] = "0"  # what is tested is done, not answered from before
os.environ["MTIA_EMU_BLOCKS"] = "0"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts compiles our modules
sys.dont_write_bytecode = False

Cli = Callable[..., Result]
MODELS = Path(__file__).parents[2] / "shared" / "models"


def pytest_configure(config: pytest.Config) -> None:
    """Look for new examples where the deep tests run."""
    if config.option.markexpr == "deep":
        settings.load_profile("deep")


@pytest.fixture(autouse=True, scope="session")
def no_products_of_integers_by_onnxruntime() -> Iterator[None]:
    """Fail the test that asks onnxruntime for products of integers: on x86 without VNNI its own saturate."""
    from mtia_emu.oracle import child, pieces

    ask = child.Child.ask

    def watched(self: child.Child, model: bytes | Path, inputs: Any) -> Any:
        assert not holds_products(model), "products of integers are asked for exactly"
        return ask(self, model, inputs)

    def holds_products(model: bytes | Path) -> bool:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            proto = (
                onnx.load_from_string(model)
                if isinstance(model, bytes)
                else onnx.load(model, load_external_data=False)
            )
        except (OSError, DecodeError):
            return False
        return pieces.multiplies_integers(proto)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.Child, "ask", watched)
        yield


@pytest.fixture
def cli() -> Cli:
    """Return a function that runs the command line; anything but a clean exit fails the test."""

    def invoke(*args: Any) -> Result:
        result = CliRunner().invoke(_main(), [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def refused(cli: Cli) -> Callable[..., str]:
    """Return a function that runs what must be refused: exit code 2 and one error; it gives the error."""

    def invoke(*args: Any) -> str:
        result = cli(*args)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        message = result.stderr
        assert message.startswith("error: ") and "Traceback" not in message
        return message

    return invoke


@pytest.fixture
def models() -> Path:
    """Return the folder of exported models; skip where it is not there."""
    if not MODELS.is_dir():
        pytest.skip("the model collection is not beside the checkout")
    return MODELS


def _main() -> Any:
    from mtia_emu.cli.app import main

    return main

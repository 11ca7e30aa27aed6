"""What many tests need: the command line in this process, and the collection of exported models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

Cli = Callable[..., Result]
MODELS = Path(__file__).parents[2] / "shared" / "models"


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
    from mtia_emu.cli import main

    return main

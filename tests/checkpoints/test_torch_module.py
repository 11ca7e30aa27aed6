"""A module of torch is a model: it is exported, timed, and executed on the arguments that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mtia_emu
from mtia_emu import TorchModel
from mtia_emu.errors import UserError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")
pytest.importorskip("onnxscript", reason="the extra `torch` is not installed")


def network() -> Any:
    """Return a small network with an optional second input."""

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(64, 128), torch.nn.Linear(128, 32)

        def forward(self, x: Any, more: Any = None) -> Any:
            hidden = torch.nn.functional.silu(self.up(x))
            return self.down(hidden if more is None else hidden + more)

    torch.manual_seed(0)
    return Network().eval()


def test_what_is_executed_is_what_torch_computes() -> None:
    module, args = network(), (torch.ones(4, 64), torch.full((4, 128), 0.5))
    done = mtia_emu.run(TorchModel(module, args), check=True, gpu=None)
    assert done.check is not None and done.check.passed and done.program.source == "Network"
    (found,) = done.outputs.values()
    np.testing.assert_allclose(found, module(*args).detach().numpy(), atol=5e-3)


def test_a_module_without_values_is_timed_as_one_with_them() -> None:
    with torch.device("meta"):
        empty = TorchModel(network(), (torch.empty(4, 64),))
    right = mtia_emu.run(TorchModel(network(), (torch.ones(4, 64),)), gpu=None).report
    assert mtia_emu.run(empty, gpu=None).report.cycles == right.cycles
    with pytest.raises(UserError, match="absent"):
        mtia_emu.run(empty, gpu=None, check=True)


def test_what_is_wrong_is_said() -> None:
    model = TorchModel(network(), (torch.ones(4, 64),))
    with pytest.raises(UserError, match="right is a torch module and its arguments"):
        mtia_emu.run(TorchModel(network(), torch.ones(4, 64)))
    with pytest.raises(UserError, match="torch cannot export it"):
        mtia_emu.run(TorchModel(network(), (torch.ones(4, 63),)))
    with pytest.raises(UserError, match=r"value of Network .right: .*TorchModel"):
        mtia_emu.run(network())
    with pytest.raises(UserError, match="dims"):
        mtia_emu.run(model, dims={"batch": 4})

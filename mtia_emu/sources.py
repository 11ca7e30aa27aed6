"""Where models come from: a file (ONNX, a graph's text), or one that we write (the zoo's, one operator's)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.graph_file import SUFFIX, is_graph, read_graph

from .checkpoints.torch_module import TorchModel, export_module
from .errors import UserError, nearest
from .files.scratch import scratch
from .files.writing import valid
from .options import COLD
from .program import is_program as is_program_file

if TYPE_CHECKING:
    from .zoo import Popularity
    from .zoo.llama import Llama

Array = np.ndarray[Any, Any]
Model = str | Path | TorchModel
"""A model's file or name (`zoo:NAME`, `hf:FOLDER`), or a module of torch."""
ZOO = "zoo:"
HF = "hf:"
WRITTEN = (ZOO, HF)  # what models begin with that we write
GGUF = ".gguf"
LONG = 1 << 30  # a past longer than any window


@dataclass(frozen=True)
class Source:
    """A model on disk, ONNX or a graph's text, and for one that we wrote inputs right for it, by seed.

    `popularity` is the law by which those inputs look up rows of tables, where it is not an even one; `state`
    that in which a run finds the chip where nobody says; `notes` are of the file.
    """

    path: Path
    name: str
    dims: dict[str, int]
    examples: Callable[[int], dict[str, Array]] | None = None
    popularity: Popularity | None = None
    state: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_graph(self) -> bool:
        """Return whether the file is a graph's text, in ops of ours."""
        return is_graph(self.path)

    def graph(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
        """Return the graph as imported; `shapes` of inputs bind symbolic dimensions."""
        if self.is_graph:
            return _fitting(read_graph(self.path), self.path, shapes or {})
        graph = load(self.path, {} if self.examples else self.dims, input_shapes=shapes)
        return graph.with_notes((*self.notes, *graph.notes)) if self.notes else graph

    def inputs(self, graph: Graph, seed: int) -> dict[str, Array]:
        """Return seeded inputs for the graph: those right for the model where it is one of ours."""
        from mtia_emu.compiler.inputs.samples import random_inputs

        return self.examples(seed) if self.examples else random_inputs(graph, seed)


def _fitting(graph: Graph, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Return the graph; refuse inputs of other shapes than its own, which are bound."""
    for name, kind in graph.inputs.items():
        if shapes.get(name, kind.shape) != kind.shape:
            raise UserError(f"{path}: input %{name} is {kind}; the array given is {list(shapes[name])}")
    return graph


class Operator(Protocol):
    """A model of one operator, as in `zoo.operators`; one with tables may have a `popularity` (`Source`)."""

    @property
    def name(self) -> str: ...

    @property
    def dims(self) -> dict[str, int]: ...

    def build(self, folder: Path, seed: int | None) -> Path: ...

    def example_inputs(self, seed: int) -> dict[str, Array]: ...


@contextlib.contextmanager
def open_model(
    model: Model,
    dims: Mapping[str, int],
    *,
    execute_seed: int | None = None,
) -> Iterator[Source]:
    """Give the file that `model` names; one that we write lies in a folder that then goes away.

    With `execute_seed` a zoo model gets random weights, a checkpoint its own, so that it can be executed.
    """
    if isinstance(model, TorchModel):
        with _module_source(model, dims) as source:
            yield source
        return
    model = _spelt(model)
    if model.startswith(HF):
        with _checkpoint_source(model, dims, execute_seed) as source:
            yield source
        return
    if not model.startswith(ZOO):
        yield _file_source(model, dims)
        return
    from . import zoo

    name = model[len(ZOO) :]
    full = zoo.dims(name) | dict(dims)
    with scratch() as folder:
        path = zoo.build(name, dims, folder, weights_seed=execute_seed)
        yield Source(
            path, model, full, lambda seed: zoo.example_inputs(name, full, seed), zoo.popularity(name)
        )


@contextlib.contextmanager
def _module_source(model: TorchModel, dims: Mapping[str, int]) -> Iterator[Source]:
    if dims:
        raise UserError("dims have no meaning for a module of torch: shapes are those of its args")
    with scratch() as folder:
        path, given = export_module(model, folder)
        yield Source(path, model.name, {}, (lambda seed: given) if given else None)


@contextlib.contextmanager
def _checkpoint_source(model: str, dims: Mapping[str, int], seed: int | None) -> Iterator[Source]:
    from .checkpoints import open_checkpoint

    checkpoint = open_checkpoint(model[len(HF) :], dims)
    with scratch() as folder:
        path = checkpoint.build(folder, seed)
        name, inputs = f"{HF}{checkpoint.name}", checkpoint.example_inputs
        yield Source(path, name, checkpoint.dims, inputs, notes=checkpoint.notes)


@contextlib.contextmanager
def operator_source(operator: Operator, seed: int | None) -> Iterator[Source]:
    """Give a model of one operator, in a folder that then goes away; with a seed its weights are random.

    It is measured by itself: operands lie where they are placed, and nothing is there from runs before.
    """
    with scratch() as folder:
        path = operator.build(folder, seed)
        inputs, law = operator.example_inputs, getattr(operator, "popularity", None)
        yield Source(path, operator.name, operator.dims, inputs, law, COLD)


def served_decoder(model: str) -> tuple[str, Llama]:
    """Return the name and the decoder of which steps are served: of `hf:FOLDER`, or a name of the zoo.

    Raises `UserError` where there is none, and for layers of which each remembers other tokens.
    """
    from .zoo.llama_parts import served_model

    if not model.startswith(HF):
        return model, served_model(model)
    from .checkpoints import open_checkpoint
    from .zoo.deepseek import DeepSeek

    checkpoint = open_checkpoint(model[len(HF) :], {})
    if isinstance(checkpoint.model, DeepSeek):
        raise UserError(f"{model[:80]}: step tables have no attention over latents (right: one without)")
    if any(checkpoint.model.kept(layer, LONG) < LONG for layer in range(checkpoint.model.layers)):
        raise UserError(
            f"{model[:80]}: its layers have windows, and a step table takes all layers to see all keys "
            "(right: a decoder without sliding windows)"
        )
    return checkpoint.name, checkpoint.model


def is_program(model: Model) -> TypeGuard[str | Path]:
    """Return whether `model` names a compiled program rather than a model."""
    if isinstance(model, TorchModel) or (name := _spelt(model)).startswith(WRITTEN):
        return False
    return is_program_file(Path(name))


def training_dims(model: str, dims: Mapping[str, int]) -> dict[str, int]:
    """Return dimensions for training: a decoder's logits are those of all tokens, not of the last."""
    if model.startswith(ZOO):
        from . import zoo

        return zoo.training_dims(model[len(ZOO) :], dims)
    if model.startswith(HF):
        from .checkpoints import open_checkpoint
        from .zoo.llama import SCORED

        return {SCORED: open_checkpoint(model[len(HF) :], dims).dims["seq"], **dims}
    return dict(dims)


def _spelt(model: str | Path) -> str:
    """Return the text that names a model; raise `UserError` for a value that names none."""
    if not isinstance(model, str | os.PathLike):
        right = "a file, zoo:NAME, hf:FOLDER or TorchModel(module, args)"
        raise UserError(f"a model is not a value of {type(model).__name__} (right: {right})")
    return str(model)


def _file_source(model: str, dims: Mapping[str, int]) -> Source:
    path = Path(model)
    if not path.is_file():
        raise UserError(
            f"model {model!r} is {'a folder' if path.is_dir() else 'not a file'}{_meant(path)} "
            "(right: an ONNX file, a graph's text FILE.ir, a compiled program, hf:FOLDER or hf:FILE.gguf, a "
            "checkpoint, or zoo:NAME; `mtia-emu zoo` lists the names)"
        )
    if path.suffix == GGUF:
        raise UserError(f"{model} is a checkpoint (right: {HF}{model})")
    if is_graph(path) and dims:
        raise UserError("--dim has no meaning for a graph's text: its shapes are bound")
    if is_program(path):
        raise UserError(f"{model} is compiled already, or not ONNX: it is a zip file (right: the ONNX file)")
    name = path.stem if path.stem != "model" else path.absolute().parent.name
    return Source(path, valid(name), dict(dims))


def _meant(path: Path) -> str:
    """Return `; did you mean 'x'?` for the model in a folder, or for the name most like a missing path."""
    from .zoo import zoo_names

    known = [f"{ZOO}{name}" for name in zoo_names()] if len(path.parts) == 1 else []
    folder = path if path.is_dir() else path.parent
    with contextlib.suppress(OSError):
        known += sorted(str(p) for p in folder.iterdir() if p.suffix in (".onnx", SUFFIX))
    if path.is_dir():
        return f"; did you mean '{known[-1]}'?" if known and known[-1].endswith(".onnx") else ""
    exact = f"{ZOO}{path}"
    return f"; did you mean '{exact}'?" if exact in known else nearest(str(path), known)

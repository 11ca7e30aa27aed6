"""`mtia-emu reduce`: the smallest part of a model with which a command still fails as it does now."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import UserError
from ..files.scratch import scratch
from . import options as o
from .output import progress, say
from .resident import Resident, is_ours

PLACE = "{}"  # where the model's path stands in the command
SHOWN = 120  # characters of what it prints
KEPT_BYTES = 1 << 20  # of what a command prints, that is looked at


@click.command(
    short_help="Shrink a model while a command keeps failing.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("model")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-o", "--output", required=True, metavar="FILE", callback=o.target, help="Model to write.")
@click.option("--match", metavar="TEXT", default="", help="What the command must print as well.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="FLOAT",
    help="Longest run of the command; a longer one does not count as failing.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="INT",
    help="Most runs of the command; what is smallest by then is written.",
)
def reduce(model: str, command: tuple[str, ...], **flags: Any) -> None:
    """Shrink MODEL (ONNX, or a graph's text FILE.ir) to a minimal one with which COMMAND still fails.

    COMMAND runs as it is, without a shell, with {} replaced by the path of a smaller model (at the end where
    there is no {}). Failing is the exit code that it has on the whole model, which must not be 0. Nodes go
    first, then sizes are halved. A mtia-emu command runs in one process that stays, another one by itself.

    \b
    Examples:
      mtia-emu reduce model.ir -o small.ir -- \\
          mtia-emu opt {} --passes legalise,mine --verify-each
      mtia-emu reduce model.onnx -o small.onnx --match "does not fit" -- \\
          mtia-emu run {}
    """
    suffix = Path(model).suffix
    if suffix not in (".ir", ".onnx") or Path(flags["output"]).suffix != suffix:
        raise UserError(f"{model!r} is shrunk to {flags['output']!r}: right: both FILE.ir, or both FILE.onnx")
    with scratch() as folder, progress() as tick:
        trial = Trial(command, folder / f"model{suffix}", flags["match"], flags["seconds"], flags["runs"])
        try:
            before, after = (_graph if suffix == ".ir" else _onnx)(model, trial, flags["output"], tick)
        finally:
            trial.close()
    say(f"{flags['output']}: {before} nodes -> {after}, {trial.count} runs of the command", err=True)
    if trial.everywhere:
        say(
            f"the command fails with {trial.code} on a model of one other node as well: it may fail on any "
            f"model ({trial.said})",
            err=True,
        )
    if trial.count > flags["runs"]:
        say("the runs were used up: it may shrink further (--runs)", err=True)


@dataclass
class Trial:
    """A command that is run on models, one after another, at the same path."""

    command: tuple[str, ...]
    path: Path
    match: str
    seconds: float
    most: int
    code: int = 0
    count: int = 0
    everywhere: bool = False  # it fails on a model that has nothing of the whole one too
    said: str = ""  # the last line that it prints there
    resident: Resident | None = None

    def __post_init__(self) -> None:
        """A command of ours needs no process of its own."""
        if is_ours(self.command[0]):
            self.resident = Resident()

    def close(self) -> None:
        """End the process that stays, where there is one."""
        if self.resident is not None:
            self.resident.close()
            self.resident = None

    def first(self) -> None:
        """Run the command on the whole model; raise `UserError` where it does not fail as it should."""
        code, said = self._run()
        if code is None:
            raise UserError(
                f"the command takes more than {self.seconds:g} s on the whole model (right: --seconds)"
            )
        if code == 0:
            raise UserError("the command does not fail on the whole model: its exit code is 0")
        if self.match and self.match not in said:
            raise UserError(
                f"the command fails with {code}, but does not print {self.match!r}: {said[-300:]!r}"
            )
        self.code = code

    def fails(self, write: Callable[[Path], None]) -> bool:
        """Return whether the command fails as at first on the model that `write` puts at the path."""
        if self.count >= self.most:
            self.count = self.most + 1
            return False
        write(self.path)
        code, said = self._run()
        return code == self.code and self.match in said

    def alone(self, write: Callable[[Path], None]) -> bool:
        """Return whether the command fails as at first by itself too: from now on in a process of its own."""
        if self.resident is None:
            return True
        self.close()
        write(self.path)
        code, said = self._run()
        return code == self.code and self.match in said

    def try_other(self, write: Callable[[Path], None]) -> None:
        """Find out whether the command fails as at first on a good model of one node, which `write` puts."""
        from ..view.text import shorten

        write(self.path)
        code, said = self._run()
        self.everywhere = code == self.code and self.match in said
        self.said = shorten((said.strip().splitlines() or ["it prints nothing"])[-1], SHOWN)

    def _run(self) -> tuple[int | None, str]:
        """Return the command's exit code, None where it took too long, and what it printed."""
        self.count += 1
        words = [word.replace(PLACE, str(self.path)) for word in self.command]
        words += [] if any(PLACE in word for word in self.command) else [str(self.path)]
        return self._by_itself(words) if self.resident is None else self._resident(self.resident, words)

    def _resident(self, resident: Resident, words: list[str]) -> tuple[int | None, str]:
        out = self.path.with_suffix(".out")
        code = resident.run(words[1:], out, self.seconds)
        with out.open("rb") as said:
            return code, said.read(KEPT_BYTES).decode(errors="replace")

    def _by_itself(self, words: list[str]) -> tuple[int | None, str]:
        with tempfile.TemporaryFile() as out:
            try:
                process = subprocess.run(
                    words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=self.seconds, check=False
                )
            except subprocess.TimeoutExpired:
                return None, ""
            except (OSError, ValueError) as error:
                raise UserError(f"the command {words[0]!r} cannot be run: {error}") from None
            out.seek(0)
            return process.returncode, out.read(KEPT_BYTES).decode(errors="replace")


def _graph(model: str, trial: Trial, output: str, tick: Any) -> tuple[int, int]:
    """Shrink a graph's text; return its nodes before and after."""
    from mtia_emu.compiler.graph_file import read_graph, write_graph

    from ..testing.shrink import shrink

    whole = read_graph(model)
    beside = trial.path.with_suffix(".npz")

    def write(graph: Any) -> Callable[[Path], None]:
        def put(path: Path) -> None:
            beside.unlink(missing_ok=True)
            write_graph(path, graph)

        return put

    write(whole)(trial.path)
    trial.first()

    def reduced() -> Any:
        return shrink(whole, lambda graph: _told(trial, tick) and trial.fails(write(graph)))

    small = reduced()
    if not trial.alone(write(small)):  # it fails only where others ran before it
        small = reduced()
    if len(small.nodes) <= 1:
        trial.try_other(write(_other_graph({node.op for node in small.nodes})))
    write_graph(output, small)
    return len(whole.nodes), len(small.nodes)


def _onnx(model: str, trial: Trial, output: str, tick: Any) -> tuple[int, int]:
    """Shrink an ONNX model; return its nodes before and after."""
    import onnx

    from ..files.writing import write_atomic
    from ..testing.shrink_onnx import shrink_onnx

    if not Path(model).is_file():
        raise UserError(f"{model}: there is no such file (right: an ONNX file)")
    try:
        whole = onnx.load(model, load_external_data=False)
    except Exception as error:  # protobuf raises errors of its own
        raise UserError(f"{model}: not an ONNX file: {error}") from None
    if any(w.data_location == onnx.TensorProto.EXTERNAL for w in whole.graph.initializer):
        raise UserError(
            f"{model}: its weights are in other files, which a smaller model would not find "
            f"(right: mtia-emu opt {model} --passes '' -o {Path(model).stem}.ir, and reduce that)"
        )

    def write(model: Any) -> Callable[[Path], None]:
        return lambda path: write_atomic(path, model.SerializeToString())

    def reduced() -> Any:
        return shrink_onnx(whole, lambda some: _told(trial, tick) and trial.fails(write(some)))

    write(whole)(trial.path)
    trial.first()
    small = reduced()
    if not trial.alone(write(small)):  # it fails only where others ran before it
        small = reduced()
    if len(small.graph.node) <= 1:
        trial.try_other(write(_other_onnx({node.op_type for node in small.graph.node})))
    write_atomic(output, small.SerializeToString())
    return len(whole.graph.node), len(small.graph.node)


def _other_graph(ops: set[str]) -> Any:
    """Return a graph of one node, of none of these ops."""
    from mtia_emu.compiler import text

    op = "neg" if "relu" in ops else "relu"
    return text.parse(f"graph other {{\n  in %x : fp32[4]\n  %y : fp32[4] = {op}(%x)\n  out %y\n}}\n")


def _other_onnx(ops: set[str]) -> Any:
    """Return an ONNX model of one node, of none of these operators."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    node = helper.make_node("Neg" if "Relu" in ops else "Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "other", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _told(trial: Trial, tick: Any) -> bool:
    if tick is not None:
        tick("reduce", trial.count, trial.most)
    return True

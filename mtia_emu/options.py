"""How a model is compiled and run: one frozen value, passed whole.

A field says all that is to be said of an option. From it come the flag of the command line and its help, the
field of a sweep's spec, and its part in the keys of what is memoised or kept on disk. To add one: a field of
`Options`, its line in `Words`, and the code that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from numbers import Integral
from typing import Any, TypedDict, Unpack

from .errors import UserError, nearest, refuse_unknown

LAUNCHES = ("graph", "stream", "host")
COLD, WARM = "cold", "warm"  # a first run, or one of many
CHIP, BOARD, SERVER = "chip", "board", "server"  # what joules are of
DEFAULT_CHIP = "mtia-2i"
DEFAULT_GPU = "h100-sxm"
PLACES = {  # what of a model starts and ends in SRAM, by the name of the choice
    "dram": (),
    "sram": ("const", "input", "output"),
    "weights-dram": ("input", "output"),
}


@dataclass(frozen=True)
class Variant:
    """What an option says of itself in one use: its default there and its text."""

    use: str
    default: Any
    text: str


@dataclass(frozen=True)
class Spelling:
    """What an option says of itself where it is spelt.

    `uses` are the places that have it: "compile" (commands that compile a model), "operator" (gemm, tbe),
    "run" (commands that execute), "system" (the one that runs models over many chips), "program" (also with a
    compiled program), "sweep" and "workload" (a sweep's spec, and each of its models). `decides` are the
    stages whose results depend on it. `name` is the flag where it is not the field's name; `negated`, where
    giving it means false; `variants` are what it says in uses where it means something narrower.
    """

    text: str
    uses: tuple[str, ...]
    metavar: str = ""
    choices: tuple[str, ...] = ()
    decides: tuple[str, ...] = ()
    name: str = ""
    negated: bool = False
    variants: tuple[Variant, ...] = ()

    def variant(self, use: str, default: Any) -> tuple[Any, str]:
        """Return the default and the text that the option has in a use."""
        special = [(v.default, v.text) for v in self.variants if v.use == use]
        return special[0] if special else (default, self.text)


def option(default: Any, text: str, *uses: str, **more: Any) -> Any:
    """Return a dataclass field that is an option; `more` are further fields of its `Spelling`."""
    return field(default=default, metadata={"flag": Spelling(text, uses, **more)})


def _check(value: Any) -> None:
    """Raise `UserError` for a field whose value is of another type, or not among its choices."""
    for f in fields(value):
        given, flag = getattr(value, f.name), f.metadata.get("flag")
        if is_dataclass(f.default):
            right = isinstance(given, type(f.default))
        elif isinstance(f.default, bool):
            right = isinstance(given, bool)
        elif isinstance(f.default, int):
            right = isinstance(given, Integral) and not isinstance(given, bool) and int(given) >= 0
        else:
            right = isinstance(given, str) or (given is None and f.default is None)
        if not right:
            kind = "text" if f.default is None else type(f.default).__name__
            raise UserError(f"option {f.name} is {given!r} (right: {kind}, as {f.default!r})")
        if flag is not None and flag.choices and given is not None and given not in flag.choices:
            raise refuse_unknown(f.name, given, flag.choices)


@dataclass(frozen=True)
class Mode:
    """How work is put on a GPU: how it is launched, whether it is fused, and in which thermal state.

    `launch`: `graph` (back to back in a CUDA graph), `stream` (each kernel pays the longer period of stream
    launches) or `host` (the host launches each and waits for it). `fused`: as a serving runtime launches it
    (`types.launched`), else one kernel an operator. `sustained`: a board in steady state, as one that
    serves is, else a short burst.
    """

    launch: str = option(
        "graph",
        "How its kernels are launched: from a CUDA graph, on a stream, or each by a host that waits.",
        "run",
        "program",
        choices=LAUNCHES,
        name="--gpu-launch",
    )
    fused: bool = option(
        True,
        "Run it operator by operator, not fused as a serving runtime does.",
        "run",
        "program",
        name="--gpu-unfused",
        negated=True,
    )
    sustained: bool = option(
        True,
        "Time and price it in a short burst, on a board that is still cool, not in steady state.",
        "run",
        "program",
        name="--gpu-burst",
        negated=True,
    )

    def __post_init__(self) -> None:
        """Refuse a value that an option cannot have."""
        _check(self)


@dataclass(frozen=True)
class Machines:
    """The chip that a model is run on and the GPU beside it, by name or file: flags, and fields of a spec."""

    chip: str = option(
        DEFAULT_CHIP,
        "Base chip.",
        "compile",
        "sweep",
        metavar="NAME|FILE.toml",
        variants=(
            Variant(
                "compile",
                None,
                f"Chip: a name (`mtia-emu chips`) or a file.  [default: {DEFAULT_CHIP}, or a program's own]",
            ),
        ),
    )
    gpu: str = option(
        DEFAULT_GPU,
        "GPU to stand beside (`mtia-emu gpus`).",
        "run",
        "sweep",
        metavar="NAME|FILE.toml|none",
    )


@dataclass(frozen=True)
class Options:
    """How a model is compiled and run. Raises `UserError` for a value that an option cannot have."""

    dtype: str | None = option(
        None,
        "Run in fp16, bf16, fp32; with weights quantised in int8, fp8 or int4, or as the text of a quantise "
        "pass says.  [default: the model's own type, or the nearest that the chip multiplies]",
        "compile",
        "workload",
        "operator",
        metavar="TYPE",
        decides=("format",),
        variants=(
            Variant(
                "operator",
                None,
                "Type of the operands: fp16, bf16, fp32, int8; of a product also fp8_e4m3 or another float "
                "of 8 bits.  [default: fp16, or the nearest that the chip multiplies]",
            ),
        ),
    )
    calibrate: str | None = option(
        None,
        "Scale activations of --dtype int8 or fp8 by their range over so many seeded samples, or over these "
        "inputs, not row by row at run time.",
        "compile",
        metavar="INT|IO.npz",
        decides=("format",),
    )
    passes: str | None = option(
        None,
        'Passes to run: a list in order, as in "legalise,fuse-maps{max-inputs=4}", where "default" stands '
        'for all that would run; or changes of those, as in "+mine@after:fuse-tails,-merge-siblings". A name '
        "may be a file FILE.py, which is executed.  [default: default]",
        "compile",
        "sweep",
        metavar="TEXT",
        decides=("fuse", "suit"),
    )
    tune: str = option(
        "fast",
        "How mappings of kernels are chosen: by estimate and the time of a few, or of many, which takes "
        "seconds; "
        "choices are kept on disk (MTIA_EMU_TUNE_CACHE=0: not).",
        "compile",
        "operator",
        "sweep",
        choices=("fast", "full"),
        decides=("schedule", "beside", "emit", "choice"),
    )
    mapping: str | None = option(
        None,
        "Fix mappings of kernels by layer, in the words of `show --at mappings`: a file with a table "
        "[mappings], "
        'or "LAYER: MAPPING; ...". A layer may be a pattern, as in "*.q_proj".  [default: none is fixed]',
        "compile",
        "operator",
        "workload",
        metavar="FILE.toml|TEXT",
        decides=("emit",),
    )
    beside: bool = option(
        True,
        "Run independent layers side by side in one launch, each on rows of PEs, where that is faster.",
        "compile",
        "sweep",
        decides=("beside",),
    )
    prefetch: bool = option(
        True,
        "Let kernels read weights of later ones into SRAM while they leave DRAM idle.",
        "compile",
        "sweep",
        decides=("prefetch",),
    )
    state: str | None = option(
        None,
        "A first run, which reads all from DRAM, or one of many: weights that fit are in SRAM already, and "
        "the rest of SRAM caches DRAM.  [default: warm; of an operator alone: cold]",
        "compile",
        "operator",
        "sweep",
        choices=(COLD, WARM),
        decides=("schedule", "place"),
    )
    place: str = option(
        "dram",
        "Memory that operands start in and the result ends in; weights-dram: the others in SRAM.",
        "operator",
        choices=tuple(PLACES),
        decides=("place",),
    )
    routing: str = option(
        "uniform",
        "How popular the experts of a mixture are where no inputs say which ones rows go to: all alike, by "
        "Zipf's law, or as a histogram has it.",
        "compile",
        "sweep",
        metavar="uniform|zipf:A|histogram:NAME|FILE.csv",
        decides=("fuse",),
    )
    check: bool = option(
        False,
        "Execute (on seeded random inputs without --inputs), compare each output with an oracle "
        "(onnxruntime), exit 1 beyond tolerance.",
        "run",
    )
    by_layer: bool = option(
        False,
        "With --check: also hold each layer to its op's reference, on what its operands should be; name the "
        "first wrong layer and the first wrong command of it.",
        "run",
    )
    basis: str = option(
        BOARD,
        "What the joules beside a GPU's are of, on both sides: chip and memory, also the board's regulators, "
        "or also a share of the server.",
        "run",
        "program",
        choices=(CHIP, BOARD, SERVER),
    )
    system: str | None = option(
        None,
        "Run on a system of many chips (`mtia-emu systems`), which says what chips they are; a chip's own "
        "name is one of it, for micro-batches.  [default: one chip]",
        "system",
        metavar="NAME|FILE.toml",
    )
    parallel: str | None = option(
        None,
        "How the model is split over the chips of --system: tp=8 (weights and heads), pp=2 (stages), dp=2 "
        "(the batch), ep=2 (experts), cp=2 (the sequence), mb=4 (micro-batches), "
        "vp=2 (stages of a chip), sp, dispatch, tables=row|column, bucket=1MiB, stages=time; "
        "onnx: as the model's own annotations for many devices say; "
        "auto: the fastest of a few that fit.  [default: onnx where the model has such, else auto]",
        "system",
        metavar="AXIS=INT,...|onnx|auto",
    )
    annotations: str | None = option(
        None,
        "Write the ONNX model with how it was split over --system, as ONNX's own annotations.",
        "system",
        metavar="FILE.onnx",
    )
    gpu_mode: Mode = field(default=Mode())
    seed: int = option(
        0,
        "Seed of random weights and inputs.",
        "run",
        "sweep",
        metavar="INT",
        variants=(Variant("sweep", 0, "Seed of what is random."),),
    )

    def __post_init__(self) -> None:
        """Refuse a value that an option cannot have."""
        _check(self)

    @classmethod
    def of(cls, **words: Unpack[Words]) -> Options:
        """Return `options`, the defaults without them, changed by the other keywords.

        Raises `TypeError` for a keyword that is no option.
        """
        given: dict[str, Any] = dict(words)
        base = given.pop("options", cls())
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise TypeError(f"unknown option {name!r}{nearest(name, known)} (known: {', '.join(known)})")
        return replace(base, **given)

    @property
    def of_many(self) -> bool:
        """Return whether something is said of how chips of a system share a model."""
        return any(x is not None for x in (self.system, self.parallel, self.annotations))

    @property
    def run_state(self) -> str:
        """Return the state in which a run finds the chip: warm, where nothing is said."""
        return self.state or WARM

    def deciding(self, stage: str) -> tuple[tuple[str, Any], ...]:
        """Return the options on which the result of a stage depends: a part of its key."""
        names = [f.name for f, flag in declared() if stage in flag.decides]
        return tuple((name, getattr(self, name)) for name in names)

    def changed(self, *, but: str) -> list[str]:
        """Return the flags, as they are given, of options not as by default that a use does not have."""
        return [
            spelled(f).split("/")[-1]
            for holder in (self, self.gpu_mode)
            for f, flag in declared(type(holder))
            if but not in flag.uses and getattr(holder, f.name) != f.default
        ]


class Words(TypedDict, total=False):
    """Options as keywords of a function; `options` is a value that the others change."""

    options: Options
    dtype: str | None
    calibrate: str | None
    passes: str | None
    tune: str
    mapping: str | None
    beside: bool
    prefetch: bool
    state: str | None
    place: str
    routing: str
    check: bool
    by_layer: bool
    basis: str
    system: str | None
    parallel: str | None
    annotations: str | None
    gpu_mode: Mode
    seed: int


def declared(kind: Any = Options, use: str | None = None) -> Iterator[tuple[Field[Any], Spelling]]:
    """Yield the options of a class that a use has, all without one, in order; not those inside another."""
    for f in fields(kind):
        flag: Spelling | None = f.metadata.get("flag")
        if flag is not None and (use is None or use in flag.uses):
            yield f, flag


def spelled(option: Field[Any]) -> str:
    """Return the flag as the command line declares it: "--x/--no-x" of what is on unless it is turned off."""
    flag = flag_of(option)
    switched = option.default is True and not option.metadata["flag"].negated
    return f"{flag}/--no-{flag[2:]}" if switched else flag


def flag_of(option: Field[Any]) -> str:
    """Return the flag of the command line that gives an option."""
    flag: Spelling = option.metadata["flag"]
    return flag.name or f"--{option.name.replace('_', '-')}"

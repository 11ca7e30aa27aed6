"""Options: one value, from whose fields flags, keywords and spec fields come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import mtia_emu
from mtia_emu.cli import options as cli_options
from mtia_emu.cli.app import main
from mtia_emu.errors import UserError
from mtia_emu.options import DEFAULT_CHIP, DEFAULT_GPU, Machines, Mode, Options, Words, declared, flag_of
from mtia_emu.sweeps.spec import Spec, Workload, make_spec


def test_every_option_is_a_keyword_of_its_type() -> None:
    keywords, options = get_type_hints(Words), get_type_hints(Options)
    assert keywords.pop("options") is Options
    assert keywords == options


def test_every_option_has_a_use_and_every_use_its_flags() -> None:
    uses = {"compile", "operator", "run", "program", "sweep", "system", "workload"}
    for kind in (Options, Mode, Machines):
        for f, spelt in declared(kind):
            assert spelt.text and spelt.uses and uses >= {*spelt.uses}, f.name
    assert len([*declared()]) == len(fields(Options)) - 1  # all but the GPU's, which has its own


@pytest.mark.parametrize(
    ("use", "command"), [("compile", "show"), ("compile", "opt"), ("operator", "gemm"), ("sweep", "sweep")]
)
def test_a_command_has_the_flags_of_its_use(use: str, command: str) -> None:
    has = {name for p in main.commands[command].params for name in p.opts}
    assert has >= {flag_of(f) for kind in (Options, Machines) for f, _ in declared(kind, use)}


def test_flags_become_options() -> None:
    command = click.command()(cli_options.options(*cli_options.RUN)(lambda **given: None))
    words = [
        "--dtype",
        "int8",
        "--tune",
        "full",
        "--no-beside",
        "--check",
        "--seed",
        "5",
        "--gpu-unfused",
        "--gpu-launch",
        "host",
    ]
    given = command.make_context("run", words).params
    mode = Mode("host", fused=False)
    expected = Options("int8", tune="full", beside=False, check=True, seed=5, gpu_mode=mode)
    assert cli_options.chosen(given) == expected
    assert cli_options.chosen(command.make_context("run", []).params) == Options()


def test_a_sweep_has_the_fields_of_its_use() -> None:
    spec = make_spec(
        {
            "model": [{"model": "zoo:dlrm-small", "dtype": "fp16"}],
            "tune": "full",
            "prefetch": False,
            "seed": 3,
        }
    )
    assert spec.options(spec.model[0]) == Options("fp16", tune="full", prefetch=False, seed=3)
    assert Spec.model_fields.keys() >= {
        f.name for kind in (Options, Machines) for f, _ in declared(kind, "sweep")
    }
    assert (spec.chip, spec.gpu) == (DEFAULT_CHIP, DEFAULT_GPU)
    assert Workload.model_fields.keys() >= {f.name for f, _ in declared(use="workload")}


def test_keywords_change_a_whole_value() -> None:
    whole = Options(tune="full", seed=2)
    assert Options.of(options=whole, seed=3) == Options(tune="full", seed=3)
    assert Options.of() == Options()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"tune": "ful"}, "unknown tune 'ful'; did you mean 'full'"),
        ({"beside": "no"}, "option beside is 'no' .right: bool, as True"),
        ({"seed": -1}, "option seed is -1"),
        ({"seed": True}, "option seed is True"),
        ({"dtype": 8}, "option dtype is 8 .right: text"),
        ({"gpu_mode": "host"}, "option gpu_mode is 'host' .right: Mode"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused(words: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options.of(**words)


def test_a_keyword_that_is_no_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="unknown option 'dtyp'; did you mean 'dtype'"):
        mtia_emu.run("zoo:llama-tiny", dtyp="int8")  # type: ignore[call-arg]


def test_what_decides_a_stage_is_in_its_key() -> None:
    assert dict(Options(place="sram").deciding("place")) == {"state": None, "place": "sram"}
    assert dict(Options(passes="fold").deciding("suit")) == {"passes": "fold"}
    assert Options(prefetch=False).deciding("beside") == Options().deciding("beside")


def test_what_a_compiled_program_ignores_is_refused_by_its_flag() -> None:
    program = mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 2})
    for words, flag in [
        ({"beside": False}, "--no-beside"),
        ({"prefetch": False}, "--no-prefetch"),
        ({"tune": "full"}, "--tune"),
        ({"seed": 1}, "--seed"),
    ]:
        with pytest.raises(UserError, match=f"^{flag} has no meaning for a compiled program"):
            mtia_emu.run(program, gpu=None, **words)  # type: ignore[arg-type]


def test_a_compiled_program_is_shown_as_it_is_or_not_at_all(
    cli: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "p.mtia"
    cli("compile", "zoo:dlrm-small", "--dim", "batch=2", "--chip", "tiny", "-o", file)
    assert cli("show", file, "--at", "program").exit_code == 0
    for words in (("--chip", "mtia-1"), ("--set", "dram.channels=1"), ("--no-beside",), ("--dim", "batch=3")):
        assert "has no meaning for a compiled program" in refused("show", file, "--at", "program", *words)

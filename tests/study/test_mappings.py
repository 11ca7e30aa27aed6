"""The file of mappings: what was chosen, its runner-up and its least, and the same program from it."""

from __future__ import annotations

from pathlib import Path

from mtia_emu import api
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.program.text import dump
from mtia_emu.study.mappings import as_toml, layer_mappings

CHIP = load_chip("tiny")
DIMS = {"batch": 1, "seq": 24}


def test_a_model_compiled_by_its_own_file_of_mappings_is_the_same_program(tmp_path: Path) -> None:
    file, options = tmp_path / "m.toml", Options(beside=False)
    with api.open_model("zoo:llama-tiny", DIMS) as source:
        compiled = api.compile_stages(source, CHIP, options=options)
        file.write_text(as_toml(layer_mappings(compiled, CHIP), source.name, CHIP))
        again = api.compile_stages(source, CHIP, options=options, mapping=str(file))
    assert dump(again.program, commands=1 << 20) == dump(compiled.program, commands=1 << 20)


def test_a_layer_has_its_time_the_next_best_and_a_bound_below_both() -> None:
    with api.open_model("zoo:llama-tiny", DIMS) as source:
        found = layer_mappings(api.compile_stages(source, CHIP, beside=False), CHIP)
    assert sum(len(x.layers) for x in found) > len(found) > 4
    for x in found:
        assert 0 < x.least_cycles < min(x.cycles, x.runner_up_cycles) and x.runner_up != x.mapping
    logits = next(x for x in found if x.layers == ("logits",))
    product = 256 * 64  # of fp16 weights, read once
    assert logits.least_cycles >= product * 2 / CHIP.dram_bytes_per_cycle * 0.5


def test_layers_beside_others_are_shown_but_not_fixed() -> None:
    chip = load_chip("mtia-2i")
    with api.open_model("zoo:dlrm-small", {"batch": 512}) as source:
        found = layer_mappings(api.compile_stages(source, chip), chip)
    text = as_toml(found, "zoo:dlrm-small", chip)
    assert any(x.rows for x in found) and "\n# beside others, on 7 rows: " in text

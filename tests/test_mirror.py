"""The tree of tests is the tree of sources: a test of a file's own name, or the reason why not.

A source file is tested by the test of its name, of the folder that it is in (`test_ops.py` runs all ops from
one table) or of the file that it is a part of (`verify_commands.py` of `verify.py`); or tests of its folder
import it.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
FOLDERS = {"mtia_emu": "", "compiler": "compiler/", "kernels": "kernels/"}  # by where their tests are

# A test, and the files that are tested through the door which it is of: it imports them by way of others.
THROUGH = {
    "checkpoints/test_families.py": "checkpoints/base",
    "cli/test_app.py": "cli/import_ cli/lists cli/pages",
    "cli/test_effects.py": "cli/plan cli/conformance cli/diff cli/explain cli/fuzz",
    "cli/test_reduce.py": "testing/shrink testing/shrink_onnx",
    "cli/test_serve.py": "cli/ways",
    "cli/test_sweep.py": "sweeps/search sweeps/stored",
    "compiler/inputs/test_samples.py": "compiler/inputs/lawful compiler/inputs/rows",
    "compiler/lower/test_emit.py": "compiler/lower/launches",
    "compiler/passes/test_dense_experts.py": "compiler/passes/expert_masks compiler/passes/expert_rows",
    "compiler/passes/test_fold.py": "compiler/passes/tidy",
    "compiler/test_ops.py": "types/elements types/works",
    "compiler/partition/test_annotations.py": "compiler/partition/asked",
    "compiler/frontend/test_devices.py": "compiler/devices",
    "compiler/test_graph.py": "compiler/nodes",
    "compiler/test_pipeline.py": "compiler/passes/base",
    "engine/test_bounds.py": "results/bounds results/roofs",
    "engine/test_checked.py": "engine/interpreter engine/memory",
    "fleet/test_page.py": "fleet/charts",
    "gpu/test_machine.py": "gpu/matmul gpu/shapes",
    "kernels/attention/test_fused.py": "kernels/attention/extras kernels/attention/walk",
    "kernels/matmul/test_dense.py": "kernels/matmul/staging",
    "kernels/matmul/test_estimate.py": "kernels/matmul/space",
    "kernels/test_search.py": "kernels/bags/estimate kernels/bags/operands",
    "compiler/lower/test_rules.py": "kernels/rows/estimate",
    "kernels/rows/test_rowwise.py": "kernels/rows/emit_tape",
    "machine/test_chip.py": "machine/network machine/package machine/system",
    "plugins/test_kernels.py": "compiler/plugins",
    "program/test_file.py": "program/header",
    "program/test_inputs.py": "files/npz",
    "program/test_verify.py": "program/columns program/fields",
    "results/test_difference.py": "view/difference",
    "reuse/test_memo.py": "engine/memoised",
    "sweeps/test_evaluate.py": "reuse/code",
    "silicon/test_area.py": "silicon/facts",
    "study/test_accelerator.py": "results/machine",
    "compiler/partition/test_propagate.py": "compiler/partition/draft compiler/partition/seeds",
    "study/test_staged_training.py": "study/step_memory study/step_report study/step_turns",
    "compiler/gradients/test_step.py": "compiler/gradients/forms",
    "study/test_system_machine.py": "study/gpu_stage study/stage_time",
    "view/test_chips.py": "results/system_use",
    "study/test_by_layer.py": "compiler/lower/expected engine/traced study/likeness",
    "study/test_explainer.py": "results/explanation",
    "testing/test_fuzz.py": "testing/grower testing/motifs testing/motifs_bounds testing/motifs_joint "
    "testing/spread testing/widened",
    "engine/test_sequence.py": "study/trace",
    "view/test_training.py": "view/whole_run",
    "system/test_collectives.py": "system/pricing system/schedule",
    "system/test_load.py": "system/build system/form",
}

# What a test is of that is named for no source, and those tests.
OF_MORE = {
    "what a better chip does to the choice of a mapping": "kernels/monotone",
    "scripts of docs/ and examples/": "accuracy accuracy_energy accuracy_formats accuracy_mtia "
    "accuracy_systems accuracy_tpu docs examples gpu_measure score_training score_tuning",
    "the tree itself": "complete front house layers mirror repository",
    "tools of the tests": "bench fuzz_files mutants",
    "models and files of all kinds, from the reader to the report": "cases hostile models saved",
    "the command line as a whole": "cli/effects cli/help cli/help_examples cli/process files/writes",
    "gradients, all of them": "study/training_by_torch compiler/gradients/by_torch compiler/gradients/random "
    "compiler/gradient_operators compiler/dropout",
    "the compiler as a whole": "compiler/bounded_constants compiler/casts compiler/differential "
    "compiler/classic compiler/edges compiler/fused_ops compiler/graph_random compiler/microsoft "
    "compiler/paged_attention compiler/standard compiler/stored_weights compiler/lower/states",
    "exporters' models and loops": "compiler/frontend/bag_loops compiler/frontend/models",
    "a pass of a file that has several": "compiler/passes/fold compiler/passes/prune",
    "models over many chips, in every way": "study/strategies",
    "the engine as a whole": "engine/conservation engine/laws",
    "the scheduler against real servers": "serving/vllm_runs",
    "all kernels": "kernels/golden",
    "checkpoints of all families": "checkpoints/published",
    "a page": "view/report_json",
    "all formulas of fleets, with units": "fleet/formulas",
    "published arithmetic of fleets": "fleet/oracles",
    "what is never claimed of fleets": "fleet/wording",
}


def files() -> dict[str, Path]:
    """Return the files of the product by their path as tests mirror it."""
    return {
        prefix + file.relative_to(ROOT / folder).with_suffix("").as_posix(): file
        for folder, prefix in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }


FILES = files()
SOURCES = {name for name, file in FILES.items() if not file.stem.startswith("__")}
MODULES = {f"mtia_emu.{name.removesuffix('/__init__').replace('/', '.')}": name for name in FILES}
NAMED = {
    file.relative_to(TESTS).with_name(file.stem.removeprefix("test_")).as_posix()
    for file in TESTS.rglob("test_*.py")
}


@cache
def imports(file: Path) -> frozenset[str]:
    """Return the sources that a file imports, wherever in it that stands; relative ones counted."""
    package = _package(file)
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # as processes are told what to run
    return frozenset(MODULES[name] for name in names if name in MODULES)


def _package(file: Path) -> list[str]:
    """Return the package that a file of the product is in."""
    parts = file.relative_to(ROOT).parent.parts
    return list(parts) if parts[:1] == ("mtia_emu",) else ["mtia_emu", *parts]


def reached(test: Path) -> set[str]:
    """Return the files that a test imports, by itself or by way of others; one in cli/ starts commands."""
    seen: set[str] = set()
    work = [*imports(test), *(["cli/app"] if test.parent.name == "cli" else [])]
    while work:
        name = work.pop()
        if name not in seen:
            seen.add(name)
            work += imports(FILES[name])
    return seen


def has_test(name: str) -> bool:
    """Return whether a source is tested by its name, its folder's or its whole's, or imported beside."""
    folder, _, stem = name.rpartition("/")
    words = stem.split("_")
    wholes = {f"{folder}/{'_'.join(words[:n])}".lstrip("/") for n in range(1, len(words) + 1)}
    beside = {folder, f"{folder}/{folder.rpartition('/')[2]}"} - {"", "/"}
    near = (TESTS / folder).glob("*.py")
    return bool((wholes | beside) & NAMED) or any(name in imports(file) for file in near)


def test_there_are_sources_and_tests() -> None:
    assert len(SOURCES) > 250 and len(NAMED) > 150
    assert {name.partition("/")[0] for name in SOURCES} >= {"engine", "compiler", "kernels", "machine"}


def test_every_source_has_a_test_of_its_name_or_a_reason() -> None:
    listed = {name for names in THROUGH.values() for name in names.split()}
    assert {name for name in SOURCES if not has_test(name)} - listed == set(), "no test of that name"
    assert {name for name in listed if name not in SOURCES or has_test(name)} == set(), "listed for nothing"


@pytest.mark.parametrize("test", THROUGH)
def test_what_is_tested_through_a_door_is_behind_it(test: str) -> None:
    assert set(THROUGH[test].split()) <= reached(TESTS / test)


def test_every_test_is_named_for_a_source_or_listed() -> None:
    folders = {name.removesuffix("/__init__") for name in FILES.keys() - SOURCES}
    inside = {f"{folder}/{folder.rpartition('/')[2]}" for folder in folders}
    listed = {name for names in OF_MORE.values() for name in names.split()}
    assert NAMED - SOURCES - folders - inside - listed == set(), "named for nothing"
    assert listed - NAMED == set(), "listed for nothing"

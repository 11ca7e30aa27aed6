"""The command that places embedding tables."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from mtia_emu.cli.app import main

SMALL = ["shard", "zoo:dlrm-small", "--system", "tiny-board", "--batch", "256", "--batches", "2"]


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def test_a_plan_is_printed() -> None:
    shown = cli(*SMALL, "--skew", "zipf:1.05").stdout
    assert "no placement is below" in shown and "samples/s" in shown and "together" in shown
    value = json.loads(cli(*SMALL, "--shard", "table,row", "--json", "-").stdout)
    assert sum(p["count"] for p in value["placements"]) == 8 and len(value["lookup_s"]) == 8
    assert {p["kind"] for p in value["placements"]} <= {"table", "row"}
    assert value["seconds"] >= value["least_s"] and len(value["drawn_slowest_s"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shard", "zoo:llama-tiny", "--system", "tiny-board"], "did you mean|known: zoo:dlrm"),
        (["shard", "no.toml", "--system", "tiny-board"], "is not a file"),
        ([*SMALL, "--shard", "tables"], "did you mean 'table'"),
        ([*SMALL, "--skew", "zip"], "none of uniform"),
        ([*SMALL, "--hot-bytes", "1X"], "--hot-bytes '1X'"),
        (["shard", "zoo:dlrm-mlperf", "--system", "tiny-board"], "GB too little"),
        (
            ["shard", "examples/tables-1tb.toml", "--system", "tiny-board", "--skew", "uniform"],
            "say their own",
        ),
    ],
)
def test_wrong_words_end_with_2(words: list[str], message: str) -> None:
    import re

    done = cli(*words)
    assert done.exit_code == 2 and re.search(message, done.stderr) and "Traceback" not in done.stderr

"""Flags that say how caches are handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from mtia_emu.cli.handover import BYTES_PER_S, handover_of
from mtia_emu.errors import UserError

NOTHING = {
    "prefill_engines": None, "link": None, "link_latency": None, "system": None, "parallel": "tp=2",
    "chips_per_engine": None, "engines": 2,
}  # fmt: skip


def asked(**flags: Any) -> Any:
    return handover_of(NOTHING | flags)


def test_it_is_over_the_links_of_a_system_unless_a_rate_is_given() -> None:
    over = asked(prefill_engines=1, system="hgx-h200")
    assert len(over.paths) == 1 and len(over.paths[0]) == 2 and over.bytes_per_s > 1.5 * BYTES_PER_S
    assert asked(prefill_engines=1, system="hgx-h200", link=1e9).paths == ()
    assert asked(prefill_engines=3).bytes_per_s == BYTES_PER_S and asked() is None


@pytest.mark.parametrize("flags", [{"link": 1e9}, {"link_latency": 0.1}])
def test_a_link_without_such_engines_is_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--prefill-engines"):
        asked(**flags)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(("--prefill-engines", "1", "--link", "0"), "0.0 bytes/s"), (("--rate", "x"), "--rate 'x'")],
)
def test_what_is_wrong_is_said_before_steps_are_compiled(
    wrong: tuple[str, ...], said: str, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtia_emu.study.kept_tables.kept_table", lambda *_, **__: pytest.fail("compiled"))
    done = cli("serve", "zoo:llama-3-8b", *wrong)
    assert done.exit_code == 2 and said in done.output

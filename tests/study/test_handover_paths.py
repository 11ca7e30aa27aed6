"""Ways of caches over the links of a system."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.study.handover_paths import cache_path, handover_over
from mtia_emu.system.collectives import Collective, timed
from mtia_emu.system.load import load_system


def test_one_chip_sends_as_a_send_does() -> None:
    system, size = load_system("tiny-board"), 1 << 28
    path = cache_path(system, 1, 0, 1)
    assert path.seconds(size) == pytest.approx(
        timed(system, Collective("send", size, (0, 1))).seconds, rel=1e-3
    )
    assert path.bytes_per_s == pytest.approx(8e9, rel=1e-3) and len(path.links) > 0


def test_more_chips_send_their_shares_at_once() -> None:
    system = load_system("hgx-h200")
    one, two = cache_path(system, 1, 0, 1), cache_path(system, 2, 0, 1)
    assert two.bytes_per_s == pytest.approx(2 * one.bytes_per_s, rel=1e-6)
    assert two.latency_s == pytest.approx(one.latency_s, rel=0.2)


def test_what_crosses_sockets_is_slower_and_meets_there() -> None:
    """On a server of MTIA 2i, twelve chips hang on each socket: three engines of four."""
    found = handover_over(load_system("mtia-2i-server"), 4, 2, 4)
    near, far = found.paths[0][0], found.paths[0][3]
    assert far.bytes_per_s < 0.6 * near.bytes_per_s
    assert set(far.links) & set(found.paths[1][2].links)
    assert found.bytes_per_s == pytest.approx(min(p.bytes_per_s for row in found.paths for p in row))


def test_engines_for_which_there_are_no_chips_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 chips each, take 10, and it has 8 .*--link"):
        handover_over(load_system("hgx-h200"), 2, 1, 4)

"""What many chips came to, as it is printed."""

from __future__ import annotations

import io

from rich.console import Console

from mtia_emu.results.system_use import ExchangeUse, MemoryUse, StageUse, SystemUse
from mtia_emu.view.chips import system_parts
from mtia_emu.view.page import Page

FULL, EASY = MemoryUse(900, 150, 30, 20, 1000), MemoryUse(400, 50, 30, 20, 1000)
ONE = StageUse("stage 0", 2, 3e-3, 2e-3, 1.5e-3, 1e-3, EASY)
OTHER = StageUse("stage 1", 2, 2e-3, 2e-3, 0.0, 0.0, FULL)
SUM = ExchangeUse("stage 0", "all_reduce", "tp", 4096, 2, 3, 0.5e-3, "ring, plain")
USE = SystemUse("board", "pp=2,tp=2", 4, "tiny", (ONE, OTHER), (SUM,), 4, 1e-3, 2e-6, 50.0)


def printed() -> str:
    file = io.StringIO()
    console = Console(file=file, width=100)
    page = Page(console)
    page.print(*system_parts(page, USE))
    return file.getvalue()


def test_stages_memory_and_exchanges_are_printed() -> None:
    text = printed()
    for words in (
        "Chips: 4 of tiny, pp=2,tp=2",
        "stage 1",
        "100 B too few",
        "fits",
        "ring, plain",
        "1.50 ms",
    ):
        assert words in text, words
    assert "an average chip waits 1.00 ms for other stages" in text and "4 micro-batches" in text


def test_memory_is_summed() -> None:
    assert (FULL.needed, FULL.short, EASY.short) == (1100, 100, 0)
    assert USE.exposed_s == 1e-3

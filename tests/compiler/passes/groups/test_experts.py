"""Products with routed experts run with their scales; latent attention reads what heads share once."""

from __future__ import annotations

from functools import cache

from mtia_emu.compiler.lower.assemble import About

from mtia_emu import api
from mtia_emu.options import Options
from mtia_emu.study.accelerator import GraphModel
from mtia_emu.types import AttentionWork, ExpertsWork, ModelWork, ProductWork


@cache
def asked(name: str, dtype: str | None, **dims: int) -> ModelWork:
    with api.open_model(f"zoo:{name}", dims) as source:
        given = GraphModel(source.graph(), Options(dtype=dtype), About(source.name, dims=source.dims))
    return ModelWork(given.works, given.groups)


def test_scales_of_experts_are_read_by_their_products() -> None:
    found = asked("mixture-tiny", "fp8", batch=8, seq=1, past=32)
    own = [g.work for g in found.groups if isinstance(g.work, ExpertsWork)]
    alone = [w for w in found.works if isinstance(w, ExpertsWork)]
    assert len(own) == len(alone) > 0
    for grouped, before in zip(own, alone, strict=True):
        assert grouped.macs == before.macs and grouped.write_bytes == before.write_bytes // 2, (
            "fp16, not fp32"
        )
        assert before.read_bytes < grouped.read_bytes < 1.1 * before.read_bytes


def test_heads_of_latent_attention_share_one_key_which_holds_its_value() -> None:
    decode = asked("deepseek-tiny", None, batch=2, seq=1, past=32)
    each = [g.work for g in decode.groups if isinstance(g.work, AttentionWork)]
    assert each
    for work in each:
        assert (work.kv_heads, work.group) == (1, 4)
        assert (work.key_size, work.value_size, work.shared_size) == (48, 32, 32)
        assert work.read_bytes == 2 * (2 * 4 * 48 + 2 * 33 * 48), "queries, and latents once"
    absorbed = [w for w in decode.works if isinstance(w, ProductWork) and (w.batch, w.m) == (4, 2)]
    assert len(absorbed) == 2 * len(each), "a product a head, of the rows of all sequences"


def test_attention_with_keys_and_values_of_its_own_shares_none() -> None:
    found = asked("llama-tiny", None, batch=2, seq=1, past=16)
    assert all(g.work.shared_size == 0 for g in found.groups if isinstance(g.work, AttentionWork))

"""The pre-trained encoder of the accuracy page: its weights are in place, formats stay near fp32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from accuracy import encoder, formats  # noqa: E402

from mtia_emu.oracle import expected_outputs  # noqa: E402

needs_encoder = pytest.mark.skipif(
    encoder.folder() is None, reason="the encoder is an extra: pip install 'mtia-emu[accuracy]'"
)


def test_tensors_are_read_by_their_header(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    header = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    assert encoder.read_safetensors(path)["w"].tolist() == values.reshape(2, 3).tolist()


@needs_encoder
def test_sentences_of_like_meaning_are_as_near_as_published(tmp_path: Path) -> None:
    path, found = tmp_path / "m.onnx", []
    for sentence in ("A man is eating food.", "A man is eating a piece of bread."):
        ids = np.asarray([encoder.encode(sentence)])
        encoder.write(path, ids.shape[1], 1)
        found.append(expected_outputs(path, {"ids": ids}).outputs["embedding"][0])
    # Sentence Transformers documentation, semantic textual similarity of this model (recalled): 0.7553
    assert float(found[0] @ found[1]) == pytest.approx(0.7553, abs=1e-3)


@needs_encoder
def test_formats_stay_near_fp32_and_move_fewer_bytes() -> None:
    chosen = [row for row in formats.FORMATS if row[0] == "mtia-2i" and row[2] in ("fp16", "int4")]
    fp16, int4 = formats.measure(tuple(chosen))
    assert float(fp16[2]) > 0.9999 and float(int4[2]) > 0.9
    assert float(int4[-1]) < float(fp16[-1]) / 3

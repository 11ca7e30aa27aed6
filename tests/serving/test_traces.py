"""Trace files: three forms, and what is hostile."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.traces import read_trace

TRACES = Path(__file__).resolve().parents[3] / "shared/traces"


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "trace"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_table_of_our_own(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens,prefix_tokens_seen_before\n0.5,7,3,0\n\n1.5,8,4,5\n"
    found = read_trace(write(tmp_path, text))
    assert found.arrival_s.tolist() == [0.5, 1.5] and found.input_tokens.tolist() == [7, 8]
    assert found.output_tokens.tolist() == [3, 4] and found.known_tokens.tolist() == [0, 5]


def test_the_form_of_azure(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    found = read_trace(write(tmp_path, text))
    assert found.arrival_s.tolist() == pytest.approx([0, 4.314579]) and found.input_tokens.tolist() == [
        374,
        396,
    ]


@pytest.mark.parametrize("pack", [lambda x: x, gzip.compress])
def test_the_form_of_mooncake(tmp_path: Path, pack: object) -> None:
    line = '{"timestamp": 1500, "input_length": 600, "output_length": 5, "hash_ids": [3, 9]}\n'
    found = read_trace(write(tmp_path, pack(line.encode())))  # type: ignore[operator]
    assert found.arrival_s.tolist() == [1.5] and found.prefixes == ((3, 9),) and found.piece_tokens == 512


HEAD = "arrival_s,input_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no requests"),
        (HEAD, "no requests"),
        ("when,input_tokens,output_tokens\n1,2,3\n", "line 2: no arrival time"),
        ("arrival_s,output_tokens\n1,2\n", "line 2: no input_tokens"),
        (HEAD + "1,2\n", "line 2 has 2 values where the header has 3"),
        (HEAD + "nan,2,3\n", "arrival_s is 'nan'"),
        (HEAD + "-1,2,3\n", "arrival_s is '-1'"),
        (HEAD + "inf,2,3\n", "arrival_s is 'inf'"),
        (HEAD + "1,0,3\n", "input_tokens is '0'; right is a whole number from 1"),
        (HEAD + "1,2,0\n", "output_tokens is '0'"),
        (HEAD + "1,2.5,3\n", "input_tokens is '2.5'"),
        (HEAD + "1,999999999999999999999,3\n", "input_tokens is '999999999999999999999'"),
        (HEAD + "2,2,3\n1,2,3\n", "request 2 arrives at 1.0 s, before request 1"),
        ('{"arrival_s": 1\n', "line 1 is not JSON"),
        ('{"arrival_s": true, "input_tokens": 1, "output_tokens": 1}', "arrival_s is 'True'"),
        ('{"arrival_s": 1, "input_tokens": [1], "output_tokens": 1}', "input_tokens is"),
        (
            '{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1, "hash_ids": ["x"]}',
            "hashes of a prefix are",
        ),
        ('{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1}\n[1]', "line 2 is not a JSON object"),
        (b"\xff\xfe\n", "line 1 is not text"),
        (b"\x1f\x8b garbage", "cannot be read"),
        ("x" * (1 << 20) + "y", "line 1 is longer"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,1\n", "TIMESTAMP is 'soon'"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str | bytes, error: str) -> None:
    with pytest.raises(UserError, match=error):
        read_trace(write(tmp_path, text))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtia_emu.serving.traces.MOST_BYTES", 1 << 16)
    packed = gzip.compress((HEAD + "1,2,3\n" * 100_000).encode())
    with pytest.raises(UserError, match="more than 65536 bytes unpacked"):
        read_trace(write(tmp_path, packed))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.skipif(not TRACES.is_dir(), reason="the public traces are not there")
def test_public_traces_are_read_whole() -> None:
    azure = read_trace(TRACES / "azure_2023_conv.csv")
    assert len(azure) == 19_366 and azure.output_tokens.sum() == 4_088_665
    mooncake = read_trace(TRACES / "mooncake_conversation_first3000.jsonl.gz")
    assert len(mooncake) == len(mooncake.prefixes) == 3000

"""What became of tests and models, as rows of tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .cases import Verdict
from .models import DTYPES, FormatRun, ModelVerdict

OPERATOR_COLUMNS = ["operator", "cases", "passed", "failed", "unsupported", "why not"]
MODEL_COLUMNS = ["model", "nodes", *(f"error in {d}" for d in DTYPES), "note"]
STATUSES = ("passed", "failed", "unsupported")


def totals(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many cases there are of each outcome, and how many had operands bound or nothing to run."""
    counts = Counter(v.status for v in verdicts)
    passed = [v for v in verdicts if v.status == "passed"]
    return {
        "cases": len(verdicts),
        **{status: counts[status] for status in STATUSES},
        "bound": sum(bool(v.bound) for v in passed),
        "folded": sum(v.folded for v in passed),
    }


def operator_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Return a row for each operator, by name."""
    by_operator: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_operator.setdefault(verdict.op, []).append(verdict)
    rows = []
    for operator in sorted(by_operator, key=str.lower):
        mine = by_operator[operator]
        counts = Counter(v.status for v in mine)
        why = Counter(reason(v) for v in mine if v.status != "passed")
        shown = "; ".join(f"{text} ({n})" if n > 1 else text for text, n in why.items())
        rows.append([operator, str(len(mine)), *(str(counts[s] or "") for s in STATUSES), shown])
    return rows


def reason(verdict: Verdict) -> str:
    """Return why a case did not pass, without the names that are the case's own."""
    text = verdict.reason.split("\n")[-1].strip()
    text = re.sub(r"^\S+\.onnx: ", "", text)
    text = re.sub(r"^\S+ x\d+: ", "", text)
    text = re.sub(r"\s*\([^()]*\)$", "", text)
    return re.sub(r"^input \S+ is", "an operand is", text)


def model_rows(models: Sequence[ModelVerdict]) -> list[list[str]]:
    """Return a row for each model; an error beyond tolerance is marked with it."""
    rows = []
    for model in models:
        runs = [model.runs.get(dtype) for dtype in DTYPES]
        note = model.reason or (
            f"no weights or inputs: timed at {model.seconds:.3g} s" if not model.runs else ""
        )
        note = note or "; ".join(
            sorted({r.reason.split("\n")[0] for r in runs if r is not None and r.reason})
        )
        rows.append([model.name, str(model.nodes), *(_error(r) for r in runs), note])
    return rows


def _error(ran: FormatRun | None) -> str:
    if ran is None:
        return ""
    if ran.reason:
        return "refused"
    return f"{ran.error:.1e}" if ran.passed else f"{ran.error:.1e}, above {ran.tolerance:g}"


def as_json(verdicts: Sequence[Verdict], models: Sequence[ModelVerdict]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "schema": "mtia-emu.conformance.v1",
        "totals": totals(verdicts),
        "cases": [asdict(v) for v in verdicts],
        "models": [asdict(m) for m in models],
    }

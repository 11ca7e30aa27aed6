"""Where each field of a command stands in its record, read as a tuple: so commands are executed."""

from __future__ import annotations

from typing import Any

from .isa import COMMAND

Fields = tuple[Any, ...]  # of one command, in order
(
    OP,
    CAST,
    FN,
    FLAGS,
    PE,
    SRC_PE,
    OPERAND,
    OPERAND2,
    DST,
    SRC0,
    SRC1,
    SRC2,
    STAGE,
    ROW,
    COL,
    ROWS,
    COLS,
    ROW2,
    COL2,
    K,
    IMM,
) = range(len(COMMAND.names or ()))

"""What stands around a chip: its board and its server."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .units.memory import STRICT, unit


class Server(BaseModel):
    """The board and the server around a chip: what they take, and what is published of both beside a GPU."""

    model_config = STRICT

    regulator_share: float = Field(
        ge=0,
        le=1,
        description="lost in the board's regulators, of what the chip and its memory take",
        json_schema_extra=unit("share"),
    )
    board_w: float = Field(
        ge=0, description="other parts of the board, for a chip", json_schema_extra=unit("W")
    )
    server_chips: int = Field(gt=0, le=4096, description="chips of a server", json_schema_extra=unit("chips"))
    server_w: float = Field(
        ge=0,
        description="the rest of a server: hosts, network, fans, supplies",
        json_schema_extra=unit("W"),
    )
    host_bytes_per_s: float = Field(
        ge=0,
        le=1e15,
        description="the link to the host, each way; 0: not known",
        json_schema_extra=unit("B/s"),
    )
    perf_per_w_low: float = Field(
        ge=0,
        description="published performance per watt beside a GPU, the least of its models; 0: none is",
        json_schema_extra=unit("x"),
    )
    perf_per_w_mean: float = Field(ge=0, description="the same, the mean", json_schema_extra=unit("x"))
    perf_per_w_high: float = Field(ge=0, description="the same, the most", json_schema_extra=unit("x"))
    perf_per_w_of: str = Field(
        max_length=200, description="the same, what was measured", json_schema_extra=unit("text")
    )

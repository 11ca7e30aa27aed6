"""What a chip brings to a network: its ports, what a send costs it, who adds up what comes in."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from .units.memory import STRICT, unit


class Network(BaseModel):
    """A chip's ends of links; a system says what they are joined to."""

    model_config = STRICT

    scale_up_bytes_per_s: float = Field(
        ge=0,
        le=1e15,
        description="ports to the chips beside it, all together, each way; 0: none but the host's",
        json_schema_extra=unit("B/s"),
    )
    scale_out_bytes_per_s: float = Field(
        ge=0,
        le=1e15,
        description="ports to the network between servers, all together, each way; 0: none of its own",
        json_schema_extra=unit("B/s"),
    )
    launch_s: float = Field(
        ge=0,
        le=1,
        description="start of a collective: from its turn on the stream to the first send",
        json_schema_extra=unit("s"),
    )
    post_s: float = Field(
        ge=0,
        le=1,
        description="posting of one send: work request and doorbell",
        json_schema_extra=unit("s"),
    )
    reduce_bytes_per_s: float = Field(
        gt=0,
        le=1e15,
        description="bytes that come in and are added to what is there",
        json_schema_extra=unit("B/s"),
    )
    reducer: Literal["pes", "engines"] = Field(
        description="what adds them: PEs (SMs), which compute nothing meanwhile, or engines of the network",
        json_schema_extra=unit("name"),
    )
    buffers: Literal["dram", "sram"] = Field(
        description="where what is sent and received lies; DRAM is charged for it there",
        json_schema_extra=unit("name"),
    )

"""Requests through one or many engines: one sequential simulation, an event after another."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError
from .blocks import SharedBlocks
from .handover import MOST_ENGINES, Handover
from .load import Load
from .record import Log
from .replica import NEVER, Replica
from .routers import Router, router
from .rules import EngineRules
from .scheduler import Scheduler, Sequence
from .step_table import StepTable

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Service:
    """What serves: the rules, engines that each run on what the table is of, and how requests come to them.

    `memory_share` of the memory may be used; weights, activations and `reserve_bytes` are taken off, the
    rest is cache. `blocks` says its size instead. With a `handover`, `engines` only decode.
    """

    table: StepTable = field(repr=False)
    rules: EngineRules = field(default_factory=EngineRules)
    engines: int = 1
    route: str = "least-loaded"
    chips: int = 1  # of an engine
    memory_share: float = 0.9  # vLLM's `gpu_memory_utilization`
    reserve_bytes: int = 0
    blocks: int | None = None
    handover: Handover | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.engines <= MOST_ENGINES:
            raise UserError(f"{self.engines} engines; right are 1 to {MOST_ENGINES}")
        if not 0 < self.memory_share <= 1:
            raise UserError(f"memory_share is {self.memory_share}; right is a share above 0, at most 1")
        router(self.route)
        if self.handover is not None:
            self.handover.check(self.engines)

    @property
    def cache_blocks(self) -> int:
        """Blocks of an engine's cache. Raise `UserError` where weights leave no room for any."""
        if self.blocks is not None:
            if not 1 <= self.blocks <= 1 << 30:
                raise UserError(f"{self.blocks} blocks of cache; right are 1 to {1 << 30}")
            return self.blocks
        table = self.table
        taken = table.weight_bytes + table.activation_bytes + self.reserve_bytes
        room = int(table.memory_bytes * self.memory_share) - taken
        blocks = room // (table.kv_bytes_per_token * self.rules.block_tokens)
        if blocks < 1:
            usable = table.memory_bytes * self.memory_share
            raise UserError(
                f"{table.model} on {table.machine}: weights, activations and reserve take "
                f"{taken / 1e9:.2f} GB of the {usable / 1e9:.2f} GB that may be used; right is a "
                "machine with more memory, or more chips that share the model"
            )
        return int(blocks)


def simulate(service: Service, load: Load, *, progress: Progress | None = None) -> Log:
    """Return what happens when the requests of `load` come to `service`.

    Raise `UserError` for one that cannot fit.
    """
    return _Simulation(service, load, progress).run()


class _Simulation:
    """Events in the order of time; of those at one time, arrivals first, then engines by number."""

    def __init__(self, service: Service, load: Load, progress: Progress | None) -> None:
        self._service, self._load, self._progress = service, load, progress
        self._blocks = service.cache_blocks
        _check_fit(service, load, self._blocks)
        handover = service.handover
        self._prompt_engines = handover.engines if handover else 0
        make = range(self._prompt_engines + service.engines)
        self._engines = [
            Replica(Scheduler(service.rules, self._blocks, load.piece_tokens), service.table) for _ in make
        ]
        self._route: Router = router(service.route)
        self._routed = [0, 0]  # to engines for prompts, and to others
        count = len(load)
        self._arrival_s = load.arrival_s.copy()
        self._parts: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
        self._started_s = np.full(count, np.nan)
        self._engine = np.zeros(count, np.int64)
        self._transfer_s = np.zeros(count)
        self._link_free_s: dict[int, float] = {}
        self._done = 0
        self._next = 0  # request that arrives
        self._handed: list[tuple[float, int, int]] = []  # (when its cache has arrived, request, engine)

    def run(self) -> Log:
        load = self._load
        self._open_loop = load.concurrency is None
        if load.concurrency is not None:
            self._arrival_s[:] = np.nan
            for _ in range(min(load.concurrency, len(load))):
                self._arrive(0.0)
        times = self._arrival_s.tolist() if self._open_loop else []
        engines, count = self._engines, len(load)
        only = engines[0] if len(engines) == 1 else None
        while self._done < count:
            engine = only or min(engines, key=_next_s)
            arrival = times[self._next] if self._open_loop and self._next < count else NEVER
            handed = self._handed[0][0] if self._handed else NEVER
            if arrival <= engine.next_s and arrival <= handed:
                self._arrive(arrival)
            elif handed <= engine.next_s:
                self._decode(*heapq.heappop(self._handed))
            else:
                self._turn(engine)
        return self._log()

    def _arrive(self, now_s: float) -> None:
        """Send the next request to an engine: to one for prompts, where there are any."""
        request, load = self._next, self._load
        self._next += 1
        self._arrival_s[request] = now_s
        names = tuple(map(SharedBlocks, load.prefixes[request])) if load.prefixes else ()
        names = names[: int(load.input_tokens[request]) // load.piece_tokens]
        known = 0 if load.known_tokens is None else int(load.known_tokens[request])
        output = 1 if self._prompt_engines else int(load.output_tokens[request])
        sequence = Sequence(request, int(load.input_tokens[request]), output, names=names, known=known)
        first = self._engines[: self._prompt_engines] or self._engines
        self._submit(sequence, now_s, first)

    def _submit(self, sequence: Sequence, now_s: float, engines: list[Replica]) -> None:
        at = self._chosen(engines, sequence.names, 0)
        engines[at].submit(sequence, now_s)
        self._engine[sequence.request] = at

    def _chosen(self, engines: list[Replica], names: tuple[SharedBlocks, ...], kind: int) -> int:
        at = self._route(engines, names, self._routed[kind]) if len(engines) > 1 else 0
        self._routed[kind] += 1
        return at

    def _decode(self, now_s: float, request: int, at: int) -> None:
        """Let a request whose prompt is computed and whose cache has arrived decode."""
        prompt = int(self._load.input_tokens[request])
        output = int(self._load.output_tokens[request])
        engine = self._engines[self._prompt_engines + at]
        engine.expected -= 1
        engine.submit(Sequence(request, prompt + 1, output - 1, known=prompt), now_s)
        self._engine[request] = self._prompt_engines + at

    def _turn(self, engine: Replica) -> None:
        ended = engine.turn()
        if ended is None:
            return
        number = self._engines.index(engine) if len(self._engines) > 1 else 0
        for sequence in ended.batch.ending:
            self._parts[sequence.request] += ((number, *part) for part in sequence.parts)
            if np.isnan(self._started_s[sequence.request]):
                self._started_s[sequence.request] = sequence.started_s
            if number < self._prompt_engines and self._load.output_tokens[sequence.request] > 1:
                self._hand_over(sequence.request, number, ended.end_s)
            else:
                self._end(ended.end_s)

    def _hand_over(self, request: int, number: int, now_s: float) -> None:
        """Send a cache to an engine that decodes, when what was sent before has left the links free."""
        handover = self._service.handover
        assert handover is not None
        decoding = self._engines[self._prompt_engines :]
        at = self._chosen(decoding, (), 1)
        decoding[at].expected += 1
        path = handover.path(number, at)
        size = int(self._load.input_tokens[request]) * self._service.table.kv_bytes_per_token
        starts_s = max([now_s, *(self._link_free_s.get(link, 0.0) for link in path.links)])
        arrives_s = starts_s + path.seconds(size)
        self._link_free_s.update(dict.fromkeys(path.links, arrives_s))
        self._transfer_s[request] = arrives_s - now_s
        heapq.heappush(self._handed, (arrives_s, request, at))

    def _end(self, now_s: float) -> None:
        self._done += 1
        if not self._open_loop and self._next < len(self._load):
            self._arrive(now_s)
        if self._progress is not None and self._done % 512 == 0:
            self._progress(self._done, len(self._load))

    def _log(self) -> Log:
        schedulers = [e.scheduler for e in self._engines]
        steps = tuple(e.record.steps() for e in self._engines)
        preempted = np.zeros(len(self._load), np.int64)
        for scheduler in schedulers:
            for request, times in scheduler.tally.preemptions.items():
                preempted[request] += times
        first = np.array([steps[p[0][0]].end_s[p[0][1]] for p in self._parts])
        last = np.array([steps[p[-1][0]].end_s[p[-1][2]] for p in self._parts])
        return Log(
            *(self._load, self._arrival_s, self._started_s, first, last, preempted, self._engine),
            parts=tuple(map(tuple, self._parts)),
            engines=steps,
            blocks=(self._blocks,) * len(steps),
            cached_tokens=sum(s.tally.cached_tokens for s in schedulers),
            recomputed_tokens=sum(s.tally.recomputed_tokens for s in schedulers),
            idle_w=self._service.table.idle_w,
            chips=self._service.chips * len(steps),
            transfer_s=self._transfer_s if self._prompt_engines else None,
            prefill_engines=self._prompt_engines,
        )


def _next_s(engine: Replica) -> float:
    return engine.next_s


def _check_fit(service: Service, load: Load, blocks: int) -> None:
    """Refuse a request whose context is longer than the cache, or than the table knows."""
    longest = load.input_tokens + load.output_tokens - 1
    most = blocks * service.rules.block_tokens
    at = int(longest.argmax())
    where = f"{load.name}: request {at + 1} needs a context of {longest[at]} tokens"
    if longest[at] > most:
        raise UserError(f"{where}, and the cache has {most}; right is a larger cache or a shorter request")
    if load.prefixes and load.piece_tokens % service.rules.block_tokens:
        raise UserError(
            f"{load.name}: prefixes are known in pieces of {load.piece_tokens} tokens, which blocks of "
            f"{service.rules.block_tokens} do not divide; right is a smaller power of two"
        )
    limits = service.table.limits
    if longest[at] > limits.context:
        raise UserError(
            f"{where}, and the step table of {service.table.machine} ends at {limits.context}; right is a "
            "table that goes further or a shorter request"
        )
    rules = service.rules
    if rules.token_budget > min(limits.tokens, limits.chunk_tokens):
        raise UserError(
            f"a step may have {rules.token_budget} tokens, and the step table of {service.table.machine} "
            f"ends at {min(limits.tokens, limits.chunk_tokens)}; right is a smaller budget or a larger table"
        )
    if rules.max_sequences > min(limits.decodes, limits.sequences):
        raise UserError(
            f"a step may decode {rules.max_sequences} sequences, and the step table of "
            f"{service.table.machine} ends at {min(limits.decodes, limits.sequences)}; right is fewer"
        )
    if not service.rules.chunked_prefill and load.input_tokens.max() > service.rules.token_budget:
        raise UserError(
            f"{load.name}: a prompt of {load.input_tokens.max()} tokens never fits a step of "
            f"{service.rules.token_budget}; right is chunked prefill or a larger budget"
        )

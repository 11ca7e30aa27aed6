"""Compiled programs on disk: a zip of a JSON header and raw arrays, none of it executed or unpickled."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import ValidationError

from ..errors import UserError
from ..files.npz import BROKEN_ZIP, MAX_RANK
from ..files.writing import write_atomic
from ..machine.chip import validate
from ..machine.memories import memory_named
from ..types import TensorType, Work, WorkGroup, dtype, parse_type
from .file_turns import marks_bytes, read_routed, routed_record, stored
from .header import (
    SIZES,
    WORK_CLASSES,
    BindingRecord,
    BlockRecord,
    GroupRecord,
    Header,
    LaunchRecord,
    OperandRecord,
    PartRecord,
    SlotRecord,
    WorkRecord,
)
from .isa import COMMAND, MOST_COMMANDS, Binding, Block, Launch, Operand, Part, Program, Slot

FORMAT = "mtia-emu.program"
VERSION = 6
READABLE = (VERSION,)  # the chip of those before does not say at which clock its numbers hold
MAX_HEADER_BYTES = 64 << 20
MAX_HEADER_VALUES = 1 << 21  # of the JSON text, by its commas and brackets; each takes some hundred bytes
FREE_BYTES = 1 << 24  # a member of so many may be packed however well;
MOST_TIMES = 200  # a larger one takes at most so many times its bytes in the file: commands take about 16
MOST_IN_ALL = 2 * MOST_COMMANDS  # commands of a file
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every member: equal programs are equal files


def save(program: Program, path: str | Path) -> None:
    """Write a program, with the weights that it has, to a file that `load` reads; whole or not at all.

    Equal programs give equal bytes.
    """
    header = _header(program).model_dump_json().encode()

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as out:
            _put(out, "header.json", header)
            for index, block in enumerate(program.blocks):
                for name, data in stored(block).items():
                    _put(out, f"{name}{index}", data)
            for index, binding in enumerate(b for b in program.consts if b.name in program.data):
                array = program.data[binding.name]
                array = array if isinstance(array, np.ndarray) else array.array(binding.name)
                _put(out, f"const{index}", np.ascontiguousarray(array).tobytes(), zipfile.ZIP_STORED)

    write_atomic(path, write)


def _put(file: zipfile.ZipFile, name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    file.writestr(zipfile.ZipInfo(name, EPOCH), data, method, 1)


def _header(p: Program) -> Header:
    return Header(
        format=FORMAT,
        version=VERSION,
        model=p.model,
        source=p.source,
        dtype=p.dtype,
        dims=p.dims,
        chip=p.chip,
        blocks=[_block(b) for b in p.blocks],
        launches=[_launch(x) for x in p.launches],
        inputs=[_binding(b) for b in p.inputs],
        outputs=[_binding(b) for b in p.outputs],
        consts=[_binding(b) for b in p.consts],
        data=[b.name for b in p.consts if b.name in p.data],
        dram_bytes=p.dram_bytes,
        sram_bytes=p.sram_bytes,
        state=p.state,
        resident_bytes=p.resident_bytes,
        notes=list(p.notes),
        works=[_work_record(w) for w in p.works],
        groups=[GroupRecord(work=_work_record(g.work), parts=list(g.parts), at=g.at) for g in p.groups],
    )


def _work_record(w: Work) -> WorkRecord:
    kind = next(name for name, one in WORK_CLASSES.items() if one is type(w))
    given = {name: getattr(w, name) for name in SIZES[kind]}
    sizes = {name: size for name, size in given.items() if size is not None}
    return WorkRecord(name=w.name, op=w.op, kind=kind, dtype=w.dtype.name, sizes=sizes)


def _launch(x: Launch) -> LaunchRecord:
    parts = [PartRecord(name=p.name, op=p.op, origin=p.origin) for p in x.parts]
    return LaunchRecord(
        block=x.block, addresses=list(x.addresses), name=x.name, op=x.op, origin=x.origin, parts=parts
    )


def _block(b: Block) -> BlockRecord:
    return BlockRecord(
        kernel=b.kernel,
        commands=len(b.commands if b.routed is None else b.routed.commands),
        scratch_bytes=b.scratch_bytes,
        stages=b.stages,
        mapping=b.mapping,
        bands=list(b.bands),
        routed=routed_record(b.routed),
        operands=[
            OperandRecord(
                dtype=x.dtype.name,
                shape=list(x.shape),
                strides=list(x.strides),
                space=x.space,
                written=x.written,
                by_column=x.by_column,
                tiled=x.tiled,
                across=x.across,
            )
            for x in b.operands
        ],
        slots=[
            SlotRecord(dtype=s.dtype.name, offset=s.offset, bytes=s.bytes, accumulator=s.accumulator)
            for s in b.slots
        ],
        scalar_op=b.scalar[0],
        scalar_attrs=list(b.scalar[1]),
    )


def _binding(b: Binding) -> BindingRecord:
    return BindingRecord(
        name=b.name,
        type=str(b.type),
        model_type=str(b.model_type),
        space=b.space,
        address=b.address,
        strides=list(b.strides),
    )


class _Stored:
    """A weight that is read from its program file when it is asked for."""

    def __init__(self, path: Path, member: str, binding: Binding) -> None:
        self.path, self.member, self.binding = path, member, binding

    def array(self, name: str = "") -> np.ndarray[Any, Any]:
        """Return the weight in its type's shape; raise `UserError` if the file has changed or is broken."""
        kind = self.binding.type
        try:
            with zipfile.ZipFile(self.path) as file:
                raw = _member(file, self.member, kind.bytes, self.path)
        except BROKEN_ZIP as error:
            raise UserError(f"{self.path}: weight %{self.binding.name} cannot be read: {error}") from None
        return np.frombuffer(raw, kind.dtype.numpy).reshape(kind.shape)


def load(path: str | Path) -> Program:
    """Return the program that `save` wrote.

    Raises `UserError` for other files, other versions, and programs that refer to what they do not have.
    Memory is bounded by what the header claims and the file's own sizes confirm.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            size = file.getinfo("header.json").file_size
            header = _parse(_member(file, "header.json", min(size, MAX_HEADER_BYTES), path), path)
            blocks = tuple(_read_block(file, i, b, path) for i, b in enumerate(header.blocks))
            held = {info.filename: info.file_size for info in file.infolist()}
        return _program(header, blocks, held, path)
    except UserError as error:
        named = str(error).startswith(str(path))
        raise error if named else UserError(f"{path}: broken program: {error}") from None
    except (*BROKEN_ZIP, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a program of mtia-emu: {reason} (right: what `mtia-emu compile` wrote)"
        ) from None


def _parse(raw: bytes, path: Path) -> Header:
    count = sum(raw.count(mark) for mark in b",[{")
    if count > MAX_HEADER_VALUES:
        raise UserError(
            f"{path}: broken program: header.json has some {count} values; right: at most {MAX_HEADER_VALUES}"
        )
    try:
        values = json.loads(raw)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise UserError(f"{path}: not a program of mtia-emu")
        if values.get("version") not in READABLE:
            raise UserError(
                f"{path}: a program of version {str(values.get('version'))[:20]}, this is version "
                f"{VERSION} (right: {' or '.join(map(str, READABLE))}); compile it again"
            )
        header = Header.model_validate(values)
    except (ValueError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: broken program: {where} {first['msg']}") from None
    commands = sum(b.commands for b in header.blocks)
    if commands > MOST_IN_ALL:
        raise UserError(f"{path}: broken program: claims {commands} commands; right: at most {MOST_IN_ALL}")
    return header


def _member(file: zipfile.ZipFile, name: str, size: int, path: Path) -> bytes:
    """Return a member's bytes, which must be exactly `size`."""
    info = file.getinfo(name)
    if info.file_size != size:
        raise UserError(f"{path}: broken program: {name} has {info.file_size} bytes, not {size}")
    if size > max(FREE_BYTES, MOST_TIMES * info.compress_size):
        raise UserError(
            f"{path}: broken program: {name} grows from {info.compress_size} to {size} bytes; right: at most "
            f"{MOST_TIMES} times"
        )
    with file.open(info) as stream:
        data = stream.read(size + 1)
    if len(data) != size:
        raise UserError(f"{path}: broken program: {name} ends after {len(data)} of {size} bytes")
    return data


def _read_block(file: zipfile.ZipFile, index: int, b: BlockRecord, path: Path) -> Block:
    raw = _member(file, f"block{index}", b.commands * COMMAND.itemsize, path)
    marks = b"" if b.routed is None else _member(file, f"turns{index}", marks_bytes(b), path)
    block = Block(
        b.kernel,
        tuple(
            Operand(
                dtype(x.dtype),
                tuple(x.shape),
                tuple(x.strides),
                memory_named(x.space),
                x.written,
                x.by_column,
                x.tiled,
                x.across,
            )
            for x in b.operands
        ),
        tuple(Slot(dtype(s.dtype), s.offset, s.bytes, s.accumulator) for s in b.slots),
        np.frombuffer(raw, COMMAND),
        b.scratch_bytes,
        b.stages,
        (b.scalar_op, tuple((k, _frozen(v)) for k, v in b.scalar_attrs)),
        b.mapping,
        tuple(b.bands),
    )
    return read_routed(block, b.routed, marks)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _program(h: Header, blocks: tuple[Block, ...], held: dict[str, int], path: Path) -> Program:
    from .verify import verify

    consts = tuple(_bound(h.consts))
    by_name = {b.name: b for b in consts}
    _check_data(h, by_name, held, path)
    dtype(h.dtype)
    validate(h.chip, f"in {path}")
    program = Program(
        h.model,
        h.source,
        h.dtype,
        h.dims,
        h.chip,
        blocks,
        tuple(map(_launched, h.launches)),
        tuple(_bound(h.inputs)),
        tuple(_bound(h.outputs)),
        consts,
        {name: _Stored(path, f"const{i}", by_name[name]) for i, name in enumerate(h.data)},
        h.dram_bytes,
        h.sram_bytes,
        tuple(map(_work, h.works)),
        tuple(h.notes),
        tuple(WorkGroup(_work(g.work), tuple(g.parts), g.at) for g in h.groups),
        h.state,
        h.resident_bytes,
    )
    verify(program)
    return program


def _launched(x: LaunchRecord) -> Launch:
    parts = tuple(Part(p.name, p.op, p.origin) for p in x.parts)
    return Launch(x.block, tuple(x.addresses), x.name, x.op, x.origin, parts)


def _check_data(h: Header, by_name: Mapping[str, Binding], held: dict[str, int], path: Path) -> None:
    """Refuse a file whose members are not just the weights that its header has."""
    unknown = [name for name in h.data if name not in by_name]
    if unknown:
        raise UserError(f"{path}: broken program: data for unknown weight {unknown[0]!r}")
    for index, name in enumerate(h.data):
        have, want = held.get(f"const{index}"), by_name[name].type.bytes
        if have != want:
            raise UserError(
                f"{path}: broken program: weight {name!r} takes {want} bytes, the file has {have}"
            )


def _work(w: WorkRecord) -> Work:
    sizes: dict[str, Any] = dict(w.sizes)
    return WORK_CLASSES[w.kind](w.name, w.op, dtype(w.dtype), **sizes)


def _bound(bindings: list[BindingRecord]) -> Iterator[Binding]:
    for b in bindings:
        space = memory_named(b.space)
        yield Binding(b.name, _type(b.type), _type(b.model_type), space, b.address, tuple(b.strides))


def _type(text: str) -> TensorType:
    kind = parse_type(text)
    if kind.rank > MAX_RANK or any(n >= 1 << 62 for n in kind.shape):
        raise UserError(f"not a tensor type: {text[:80]!r} (right: at most {MAX_RANK} dimensions)")
    return kind

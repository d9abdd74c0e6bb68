"""Small whole numbers as an entropy-coded string: asymmetric numeral systems over one table.

The table holds integer frequencies that add up to 2^16, and is sent. Both sides build the model
from these integers, which are exact in every float format, so a payload decodes alike on every
machine. The coder is that of the library ``constriction`` (range variant of ANS, Duda 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anabranch.updates.packed import Reader, Writer, inconsistent

if TYPE_CHECKING:
    import constriction

__all__ = ["RADIUS", "Symbols", "read_symbols", "write_symbols"]

Symbols = NDArray[np.int32]

RADIUS = 127
"""Symbols beyond are sent one by one; they are rare, and would lengthen the table."""

_TOTAL = 1 << 16
_ESCAPE = RADIUS + 1


def write_symbols(symbols: Symbols, writer: Writer) -> None:
    """Append symbols; any int32 is allowed, small ones are cheap.

    The part is: lowest symbol (i16), number of table entries (u16), table (u16 each, of the
    frequency; absent for a single entry), number of escapes (u32) and their values (i32), number
    of ANS words (u32) and the words (u32).
    """
    outside = symbols[(symbols > RADIUS) | (symbols < -RADIUS)]
    coded = symbols
    if len(outside):
        coded = np.where(np.abs(symbols.astype(np.int64)) > RADIUS, _ESCAPE, symbols)
    low = int(coded.min()) if len(coded) else 0
    places = (coded - low).astype(np.int32, copy=False)
    counts = np.bincount(places) if len(places) else np.ones(1, np.int64)
    table = _frequencies(counts)
    writer.number(low, "<i2")
    writer.number(len(table), "<u2")
    words = np.empty(0, np.uint32)
    if len(table) > 1:
        writer.array(table, "<u2")
        words = _coded(places, table)
    writer.number(len(outside), "<u4")
    writer.array(outside, "<i4")
    writer.number(len(words), "<u4")
    writer.array(words, "<u4")


def read_symbols(reader: Reader, length: int) -> Symbols:
    """Exactly ``length`` symbols.

    Raises:
        AnabranchError: AB-523 when the part is not what `write_symbols` writes.
    """
    low, entries = reader.integer("<i2"), reader.integer("<u2")
    if low < -RADIUS or entries < 1 or low + entries > _ESCAPE + 1:
        raise inconsistent("its alphabet is out of range")
    table = np.array([_TOTAL])
    if entries > 1:
        table = reader.array(entries, "<u2").astype(np.int64)
        if table.sum() != _TOTAL:
            raise inconsistent("its frequencies do not add up")
    escaped = reader.array(_bounded(reader, length), "<i4").astype(np.int32)
    words = reader.array(_bounded(reader, length + 2), "<u4").astype(np.uint32)
    symbols = _decoded(words, table, length)
    symbols += np.int32(low)
    _restore(symbols, escaped)
    return symbols


def _bounded(reader: Reader, most: int) -> int:
    count = reader.integer("<u4")
    if count > most:
        raise inconsistent("it holds more parts than coordinates")
    return count


def _restore(symbols: Symbols, escaped: Symbols) -> None:
    """Put the symbols back that were sent one by one."""
    places = np.flatnonzero(symbols == _ESCAPE)
    if len(places) != len(escaped):
        raise inconsistent("its escapes do not match")
    symbols[places] = escaped


def _frequencies(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts scaled to add up to 2^16; what occurs keeps at least one."""
    total = int(counts.sum())
    table = np.where(counts > 0, np.maximum(counts * _TOTAL // total, 1), 0)
    order = np.argsort(-table, kind="stable")
    rest = _TOTAL - int(table.sum())
    if rest > 0:
        table[order[0]] += rest
    for place in order:  # rarely more than the first: only single counts were lifted
        taken = min(-rest, int(table[place]) - 1)
        if rest >= 0 or taken <= 0:
            break
        table[place] -= taken
        rest += taken
    return table


def _model(table: NDArray[np.int64]) -> constriction.stream.model.Categorical:
    import constriction  # only where symbols are coded: other plans do without it

    return constriction.stream.model.Categorical(table / float(_TOTAL), perfect=False)


def _coded(places: Symbols, table: NDArray[np.int64]) -> NDArray[np.uint32]:
    import constriction

    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(places, _model(table))
    return np.asarray(coder.get_compressed(), np.uint32)


def _decoded(words: NDArray[np.uint32], table: NDArray[np.int64], length: int) -> Symbols:
    if len(table) == 1:
        if len(words):
            raise inconsistent("one symbol needs no words")
        return np.zeros(length, np.int32)
    if len(words) and words[-1] == 0:
        raise inconsistent("its last word is empty")
    import constriction

    coder = constriction.stream.stack.AnsCoder(words)
    symbols = np.asarray(coder.decode(_model(table), length), np.int32)
    if not coder.is_empty():
        raise inconsistent("words are left over")
    return symbols

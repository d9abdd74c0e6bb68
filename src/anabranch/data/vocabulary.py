r"""Learning the codes of open categories from sums alone, without a list of guesses.

Each site proposes the codes that at least ``min_subjects`` of its subjects carry. Proposals are
added up as an invertible Bloom lookup table (Goodrich and Mitzenmacher, 2011): a code, as a
sequence of 32-bit words with a checksum, is added to three cells chosen by its hash, together with
a count of one. Cells are exact integers, so the table is an `Update` like every other: it goes
through the fold, through edges and through secure aggregation. A cell whose sum is ``count`` times
one code is read and removed from its other cells, until the table is empty. The result is the codes
and how many sites proposed each; only those of at least ``min_sites`` sites are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.data.schema import DataSchema
from anabranch.data.table import Table
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Section, Sections, Update
from anabranch.updates.total import Total
from anabranch.values import Value

__all__ = ["VocabularyRules", "fit_vocabulary", "local_vocabulary", "vocabulary_sections"]

_HASHES = 3
_WORDS = 14  # the column, the length and twelve words of four bytes
_MAX_BYTES = 4 * (_WORDS - 2)
_WIDTH = 2 + _WORDS  # count, checksum, words
_SECTION = "vocabulary"


class VocabularyRules(Value):
    """When a code may become known outside its sites."""

    min_subjects: int = Field(default=10, ge=1, json_schema_extra={"unit": "subjects"})
    """Subjects of one site that must carry a code before the site proposes it."""
    min_sites: int = Field(default=2, ge=1, json_schema_extra={"unit": "sites"})
    """Sites that must propose a code before it is used."""
    max_codes: int = Field(default=512, ge=1, json_schema_extra={"unit": "codes"})
    """Different codes, over all open columns and sites, that the table has room for."""


def vocabulary_sections(schema: DataSchema, rules: VocabularyRules) -> Sections:
    """The one section of a proposal; none when every code is in the contract."""
    if not schema.open:
        return Sections(())
    return Sections((Section.count(_SECTION, _cells(rules) * _WIDTH),))


def local_vocabulary(table: Table, rules: VocabularyRules, client: str) -> Update:
    """One site's proposals.

    Raises:
        AnabranchError: AB-224 when a code is longer than 48 bytes of UTF-8.
    """
    schema = table.schema
    if not schema.open:
        return Update({}, {})
    cells = np.zeros((_cells(rules), _WIDTH))
    for number, column in enumerate(schema.open):
        for code in _carried(table, column.name, rules.min_subjects):
            words = _encode(number, code, column.name, client)
            _add(cells, words, 1.0)
    return Update({_SECTION: cells.ravel()}, {})


def fit_vocabulary(
    schema: DataSchema, total: Total, rules: VocabularyRules
) -> Mapping[str, tuple[str, ...]]:
    """The codes of each open column, sorted: input of `DataSchema.with_codes`.

    Raises:
        AnabranchError: AB-224 when there were more different codes than the table has room for.
    """
    found: dict[str, list[str]] = {column.name: [] for column in schema.open}
    if not schema.open:
        return {}
    cells = total.sums[_SECTION].reshape(-1, _WIDTH).copy()
    waiting = list(range(len(cells)))
    while waiting:
        cell = cells[waiting.pop()]
        words = _pure(cell)
        if words is None:
            continue
        sites = float(cell[0])
        _add(cells, words, -sites)
        waiting += _places(words, len(cells))
        if sites >= rules.min_sites:
            column, code = _decode(words)
            found[schema.open[column].name].append(code)
    if cells.any():
        raise AnabranchError(
            "AB-224",
            f"the sites propose more than {rules.max_codes} different codes.",
            fix="list the codes in the contract, raise max_codes, or leave out free-text columns.",
        )
    return {name: tuple(sorted(codes)) for name, codes in found.items()}


def _cells(rules: VocabularyRules) -> int:
    # Three hashes peel below 0.81 codes a cell in the limit; small tables need slack.
    return 3 * (rules.max_codes // 2 + 12)


def _carried(table: Table, name: str, min_subjects: int) -> list[str]:
    codes, place = np.unique(table.columns[name], return_inverse=True)
    pairs = np.unique(np.stack([place, table.subjects]), axis=1)
    subjects = np.bincount(pairs[0], minlength=len(codes))
    return [
        str(code)
        for code, count in zip(codes.tolist(), subjects, strict=True)
        if code and count >= min_subjects
    ]


def _encode(column: int, code: str, name: str, client: str) -> NDArray[np.float64]:
    data = code.encode()
    if len(data) > _MAX_BYTES:
        raise AnabranchError(
            "AB-224",
            f"client {client!r}: column {name!r} has a code of {len(data)} bytes "
            f"(largest: {_MAX_BYTES}).",
            fix="shorten the codes in site.toml, or leave out the column: it looks like free text.",
            kept="Nothing was sent.",
        )
    text = np.frombuffer(data.ljust(_MAX_BYTES, b"\0"), "<u4")
    return np.concatenate([[column, len(data)], text]).astype(np.float64)


def _decode(words: NDArray[np.float64]) -> tuple[int, str]:
    data = words[2:].astype("<u4").tobytes()
    return int(words[0]), data[: int(words[1])].decode()


def _digest(words: NDArray[np.float64]) -> bytes:
    return blake2b(words.astype("<u8").tobytes(), digest_size=4 + 8 * _HASHES).digest()


def _checksum(words: NDArray[np.float64]) -> float:
    return float(int.from_bytes(_digest(words)[:4], "little"))


def _places(words: NDArray[np.float64], cells: int) -> list[int]:
    """One cell in each third of the table."""
    third, digest = cells // _HASHES, _digest(words)[4:]
    return [
        number * third + int.from_bytes(digest[8 * number : 8 * number + 8], "little") % third
        for number in range(_HASHES)
    ]


def _add(cells: NDArray[np.float64], words: NDArray[np.float64], times: float) -> None:
    entry = np.concatenate([[1.0, _checksum(words)], words])
    cells[_places(words, len(cells))] += times * entry


def _pure(cell: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The words of a cell that holds one code only (from any number of sites)."""
    count = cell[0]
    if count < 1:
        return None
    words = cell[2:] / count
    if (words != np.floor(words)).any() or words.max() >= 2.0**32:
        return None
    return words if _checksum(words) == cell[1] / count else None

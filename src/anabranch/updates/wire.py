"""An update as bytes: the declared sections in a safetensors container, nothing else."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.updates.container import Buffer, joined, parts_of, read_views, size_of
from anabranch.updates.packed import Packed
from anabranch.updates.sections import Sections, Statistics, Update, Vector

__all__ = ["pack", "packed_parts", "packed_size", "unpack"]


def pack(update: Update, sections: Sections) -> bytes:
    """Serialise exactly the declared sections; vectors as float32, the rest as float64, and what
    a codec has packed as its bytes.

    Raises:
        KeyError: a declared section is missing.
    """
    return joined(packed_parts(update, sections))


def packed_parts(update: Update, sections: Sections) -> tuple[Buffer, ...]:
    """The same bytes as `pack`, in parts that are views of the update's arrays.

    Raises:
        KeyError: a declared section is missing.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    for section in sections.vectors:
        packed = update.packed.get(section.name)
        tensors[section.name] = (
            np.ascontiguousarray(update.vectors[section.name])
            if packed is None
            else np.frombuffer(packed.content, np.uint8)
        )
    for section in sections.scalars:
        tensors[section.name] = np.array([update.scalars[section.name]], np.float64)
    return parts_of(tensors)


def packed_size(update: Update) -> int:
    """Bytes of `pack` for all that the update holds.

    >>> from anabranch.updates.sections import Section
    >>> update = Update({"delta": np.zeros(5, np.float32)}, {"weight": 1.0})
    >>> packed_size(update) == len(
    ...     pack(update, Sections((Section.vector("delta", 5), Section.count("weight"))))
    ... )
    True
    """
    arrays: dict[str, NDArray[np.generic]] = {**update.vectors}
    arrays |= {n: np.frombuffer(packed.content, np.uint8) for n, packed in update.packed.items()}
    arrays |= {name: np.array([number], np.float64) for name, number in update.scalars.items()}
    return size_of(parts_of({n: np.ascontiguousarray(array) for n, array in arrays.items()}))


def unpack(payload: Buffer, sections: Sections, client: str) -> Update:
    """The inverse of `pack`, with every name, length and type checked.

    The arrays are read-only views of ``payload``, which may be a file that is mapped into memory.
    A packed section keeps its bytes, with the declared length beside them; `Pipeline.decode_one`
    checks and decodes it.

    Raises:
        AnabranchError: AB-501 when the payload is not an update of these sections.
    """
    try:
        # Every type is checked at the end, against the declared sections.
        tensors = cast(dict[str, Vector | Statistics], read_views(payload))
    except ValueError as error:
        raise AnabranchError(
            "AB-501",
            f"client {client!r} sent bytes that are not an update ({type(error).__name__}).",
            fix="use the same software version at the client and the coordinator.",
            kept="The update was refused; the round goes on.",
        ) from error
    scalars = {}
    for section in sections.scalars:
        number = tensors.get(section.name)
        # Anything else stays among the arrays, where the check below refuses it.
        if number is not None and number.shape == (1,) and number.dtype == np.float64:
            scalars[section.name] = float(tensors.pop(section.name)[0])
    packed = {
        section.name: Packed(section.length, tensors.pop(section.name).tobytes())
        for section in sections.vectors
        if section.name in tensors and tensors[section.name].dtype == np.uint8
    }
    update = Update(tensors, scalars, packed)
    rest = Sections(tuple(s for s in sections if s.name not in packed))
    Update(tensors, scalars).check(rest if packed else sections, client)
    return update

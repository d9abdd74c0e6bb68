"""An update as bytes: the declared sections in a safetensors container, nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from anabranch.errors import AnabranchError
from anabranch.updates.packed import Packed
from anabranch.updates.sections import Sections, Update

__all__ = ["pack", "unpack"]


def pack(update: Update, sections: Sections) -> bytes:
    """Serialise exactly the declared sections; vectors as float32, the rest as float64, and what
    a codec has packed as its bytes.

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
    return save(tensors)


def unpack(payload: bytes, sections: Sections, client: str) -> Update:
    """The inverse of `pack`, with every name, length and type checked.

    A packed section keeps its bytes, with the declared length beside them; `Pipeline.decode_one`
    checks and decodes it.

    Raises:
        AnabranchError: AB-501 when the payload is not an update of these sections.
    """
    try:
        tensors = load(payload)
    except Exception as error:  # the container library has no public base class for its errors
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

"""An update as bytes: the declared sections in a safetensors container, nothing else."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from anabranch.errors import AnabranchError
from anabranch.updates.sections import Sections, Update

__all__ = ["pack", "unpack"]


def pack(update: Update, sections: Sections) -> bytes:
    """Serialise exactly the declared sections; vectors as float32, the rest as float64.

    Raises:
        KeyError: a declared section is missing.
    """
    tensors = {s.name: np.ascontiguousarray(update.vectors[s.name]) for s in sections.vectors}
    for section in sections.scalars:
        tensors[section.name] = np.array([update.scalars[section.name]], np.float64)
    return save(tensors)


def unpack(payload: bytes, sections: Sections, client: str) -> Update:
    """The inverse of `pack`, with every name, length and type checked.

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
    update = Update(tensors, scalars)
    update.check(sections, client)
    return update

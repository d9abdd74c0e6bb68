"""An update as bytes: the declared sections in a safetensors container, nothing else."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load, save

from anabranch.errors import AnabranchError
from anabranch.updates.sections import Kind, Sections, Update

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
    scalars = {s.name: float(tensors[s.name][0]) for s in sections.scalars if s.name in tensors}
    vectors = {name: value for name, value in tensors.items() if name not in scalars}
    update = Update(vectors, scalars)
    update.check(sections, client)
    for section in sections.vectors:
        wanted = np.float32 if section.kind is Kind.VECTOR else np.float64
        if vectors[section.name].dtype != wanted:
            raise AnabranchError(
                "AB-501",
                f"client {client!r}: section {section.name!r} is "
                f"{vectors[section.name].dtype}, declared is {np.dtype(wanted)}.",
                fix="use the same software version at the client and the coordinator.",
                kept="The update was refused; the round goes on.",
            )
    return update

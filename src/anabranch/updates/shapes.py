"""Shapes of a model's parameters, for stages that see matrices in a vector."""

from __future__ import annotations

import math
from typing import TypeAlias

from anabranch.errors import AnabranchError
from anabranch.updates.layout import Layout, Policy

__all__ = ["Shapes", "covered", "shapes_for"]

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
"""One shape a parameter, in the vector's order; empty while no model is known."""


def covered(shapes: Shapes) -> int:
    """Coordinates that the shapes account for; -1 while they are not known.

    >>> covered(((2, 3), (4,))), covered(())
    (10, -1)
    """
    return sum(math.prod(shape) for shape in shapes) if shapes else -1


def shapes_for(stage: str, shapes: Shapes, layout: Layout) -> Shapes:
    """The shapes of the model's averaged parameters, unless the stage has its own.

    Args:
        stage: its name.
        shapes: its own; may be empty.
        layout: of the model.

    Raises:
        AnabranchError: AB-466 when its own have another number of coordinates.
    """
    if not shapes:
        return tuple(p.shape for p in layout.parameters if p.policy is Policy.AVERAGE)
    if covered(shapes) != layout.averaged:
        raise AnabranchError(
            "AB-466",
            f"the shapes of stage {stage!r} have {covered(shapes)} coordinates; the model "
            f"averages {layout.averaged}.",
            fix="leave 'shapes' out, so that those of the model are taken.",
            kept="Nothing was started.",
        )
    return shapes

"""The base of every frozen value that a plan may contain.

Algorithms, local training, stages, partitioners and data schemas are *values*: immutable,
comparable, printable, readable from TOML, and equal to what was written in a notebook.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Value"]

V = TypeVar("V", bound="Value")


class Value(BaseModel):
    """An immutable record with checked fields; unknown fields are errors.

    Every field that a user can set carries a ``description`` and, where it has one, a ``unit``
    in ``json_schema_extra``; ``anabranch plan schema`` prints both.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=False,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )

    def replace(self: V, **changes: object) -> V:
        """A copy with ``changes`` applied and every check run again."""
        values = {**dict(self), **changes}
        fields = type(self).model_fields
        return type(self).model_validate(
            {(fields[k].alias if k in fields else None) or k: v for k, v in values.items()}
        )

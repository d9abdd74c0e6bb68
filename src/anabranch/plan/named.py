"""Values chosen by name: a built-in one (``fedprox``) or a user's own (``module:Class``).

A plan's table ``[algorithm]``, or an entry of ``updates.stages``, names a class and its fields::

    [algorithm]
    name = "fedprox"
    mu = 0.01

`Named` is the pydantic annotation that turns such a table into the frozen value and back. A class
from a notebook cell has no importable name; the plan that holds it can be simulated, not served.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from anabranch.named import load_named
from anabranch.values import Value

__all__ = ["Named", "Reference", "reference_of"]

JsonSchema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a user's own class comes from.

    Attributes:
        name: ``module:Class``.
        sha256: of the source text of the class, or "" when it cannot be read.
        importable: whether another process can import it by this name.
    """

    name: str
    sha256: str
    importable: bool


def reference_of(target: Callable[..., object]) -> Reference:
    """The reference of a class or function; one made in a cell or a function is not importable."""
    name = f"{target.__module__}:{target.__qualname__}"
    try:
        digest = sha256(inspect.getsource(target).encode()).hexdigest()
    except (OSError, TypeError):  # made in an interactive session: no source text is kept
        digest = ""
    importable = target.__module__ != "__main__" and "<locals>" not in target.__qualname__
    return Reference(name, digest, importable)


@dataclass(frozen=True)
class Named:
    """Annotation of a field that holds any subclass of ``base``, chosen by ``key``.

    Attributes:
        base: every choice is a subclass of it.
        key: the key of the table that names the class.
        registry: the built-in classes by name; asked late, so that rooms may register theirs.
    """

    base: type[Value]
    key: str
    registry: Callable[[], Mapping[str, type[Value]]]

    def name_of(self, target: type[Value]) -> str:
        """The built-in name of a class, else ``module:Class``."""
        for name, known in self.registry().items():
            if known is target:
                return name
        return reference_of(target).name

    def own(self, value: Value) -> Reference | None:
        """The reference of a user's own class; None for a built-in one."""
        known = type(value) in self.registry().values()
        return None if known else reference_of(type(value))

    def read(self, given: object) -> Value:
        """The value of a table, or the value itself."""
        if isinstance(given, self.base):
            return given
        if not isinstance(given, Mapping):
            raise PydanticCustomError(
                "named_table", "should be a table with the key '{key}'", {"key": self.key}
            )
        fields = dict(given)
        chosen = self._class(fields.pop(self.key, None))
        # Through JSON, because only there "strict" means what a reader of a file expects: no text
        # for numbers, but lists for tuples.
        return chosen.model_validate_json(json.dumps(fields, default=str), strict=True)

    def _class(self, name: object) -> type[Value]:
        if isinstance(name, str) and ":" in name:
            found = load_named(name)
            if isinstance(found, type) and issubclass(found, self.base):
                return found
            raise PydanticCustomError(
                "named_kind",
                "'{name}' is not a subclass of {base}",
                {"name": name, "base": self.base.__name__},
            )
        known = self.registry()
        if isinstance(name, str) and name in known:
            return known[name]
        raise PydanticCustomError(
            "named_unknown",
            "'{name}' is not known",
            {"name": name, "key": self.key, "known": sorted(known)},
        )

    def write(self, value: Value) -> dict[str, object]:
        """The table of a value."""
        fields = value.model_dump(mode="json")
        fields.pop(self.key, None)
        return {self.key: self.name_of(type(value)), **fields}

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(self.write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        choices = [self._choice(name, known) for name, known in sorted(self.registry().items())]
        own: JsonSchema = {
            "type": "object",
            "title": "module:Class",
            "description": f"Your own subclass of {self.base.__name__} and its fields.",
            "properties": {self.key: {"type": "string", "pattern": "^[\\w.]+:[\\w.]+$"}},
            "required": [self.key],
        }
        return {"oneOf": [*choices, own]}

    def _choice(self, name: str, known: type[Value]) -> JsonSchema:
        schema = known.model_json_schema()
        properties = {k: v for k, v in schema.get("properties", {}).items() if k != self.key}
        choice: JsonSchema = {
            "type": "object",
            "title": known.__name__,
            "description": inspect.getdoc(known) or "",
            "properties": {self.key: {"const": name}, **properties},
            "required": [self.key, *(k for k in schema.get("required", []) if k != self.key)],
            "additionalProperties": False,
        }
        if "$defs" in schema:
            choice["$defs"] = schema["$defs"]
        return choice

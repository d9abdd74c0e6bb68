"""The reference page of the plan and its JSON schema, made from the values themselves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from anabranch.plan.fields import Choice, fields_of, of_field, type_text, unit_of
from anabranch.plan.migrate import PLAN_SCHEMA
from anabranch.plan.schema import Plan
from anabranch.values import Value

__all__ = ["json_schema", "reference_page", "schema_json"]

_OPENING = f"""# The plan, key by key

A plan is a TOML file. Every table but `[runtime]` and `[devices]` belongs to the contract: it is
equal for all who take part and counts in its digest. Unknown keys are errors. The values of a file
are changed by `ANABRANCH_LOCAL__EPOCHS=2` in the environment and by `--set local.epochs=2` on the
command line; the later wins. An empty value removes a key.

This page is made from the code by `anabranch.plan.reference_page`.

## Top of the file

| key | type | default | unit |
|---|---|---|---|
| `schema` | {PLAN_SCHEMA} | required | |
"""


def json_schema() -> dict[str, object]:
    """The JSON schema (draft 2020-12) of a plan file, for editors and checkers."""
    schema: dict[str, object] = Plan.model_json_schema(mode="validation")
    properties = schema["properties"]
    if isinstance(properties, dict):
        version = {
            "const": PLAN_SCHEMA,
            "description": "The plan schema that the file is written for.",
        }
        schema["properties"] = {"schema": version, **properties}
    required = schema.get("required", [])
    schema["required"] = ["schema", *(required if isinstance(required, list) else [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_json() -> str:
    """`json_schema` as text; what ``anabranch plan schema`` prints."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference_page() -> str:
    """The page ``docs/reference/plan.md``."""
    top = {n: f for n, f in Plan.model_fields.items() if not of_field(f)}
    lines = [_OPENING.rstrip("\n"), *_rows(top), "", *_meanings(top)]
    for name, field in Plan.model_fields.items():
        options = of_field(field)
        if options:
            lines += ["", f"## [{name}]", "", field.description or "", *_options(options, name)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _options(options: tuple[Choice, ...], path: str) -> Iterator[str]:
    for option in options:
        if option.key:
            yield from ("", f'### {path} with `{option.key} = "{option.name}"`')
            yield from ("", _first_line(option.value))
            if _names_own_class(option):
                continue
        yield from _table(option.value, path, skip=option.key)


def _names_own_class(option: Choice) -> bool:
    return not [name for name in fields_of(option.value) if name != option.key]


def _table(value: type[Value], path: str, skip: str = "") -> Iterator[str]:
    fields = {name: field for name, field in fields_of(value).items() if name != skip}
    if not fields:
        return
    yield from ("", "| key | type | default | unit |", "|---|---|---|---|")
    yield from _rows(fields)
    yield ""
    yield from _meanings(fields)
    for name, field in fields.items():
        options = of_field(field)
        if options and not (len(options) == 1 and not options[0].key):
            yield from _options(options, f"{path}.{name}")
        elif options:
            yield from ("", f"### {path}.{name}", "", _first_line(options[0].value))
            yield from _table(options[0].value, f"{path}.{name}")


def _rows(fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        kind = type_text(field.annotation, tuple(field.metadata)).replace("|", "\\|")
        yield f"| `{name}` | {kind} | {_default(field)} | {unit_of(field)} |"


def _meanings(fields: dict[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        words = " ".join((field.description or "").split())
        yield f"- `{name}`: {words.replace('``', '`')}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, Value):
        dumped = {k: v for k, v in value.model_dump(mode="json").items() if v is not None}
        return f"`{{{', '.join(f'{k} = {json.dumps(v)}' for k, v in dumped.items())}}}`"
    return f"`{json.dumps(value)}`"


def _first_line(value: type[Value]) -> str:
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return text.replace("``", "`")

"""The protocol's description and vectors are those of the code, and the server keeps to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest

from anabranch.aggregation.fold import FoldPlan
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Outcome, Payload, Work
from anabranch.runtimes.http import HttpRuntime
from anabranch.runtimes.http.openapi import openapi
from anabranch.runtimes.http.server.app import application
from anabranch.testing.conformance import Sent, play, vectors
from anabranch.updates.sections import Section, Sections

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECTIONS = Sections((Section.vector("delta", 3), Section.count("weight")))


@pytest.fixture
def runtime() -> Iterator[HttpRuntime]:
    served = HttpRuntime(["c0", "c1"], Sections((Section.vector("model", 3),)))
    work = Work(
        TaskKind.TRAIN,
        1,
        (0,),
        {"model": np.zeros(3, np.float32)},
        FoldPlan(SECTIONS, 1),
        task="ab" * 16,
    )
    served.submit(work)
    yield served
    served.close()


@pytest.mark.parametrize(("name", "made"), [("openapi", openapi), ("conformance", vectors)])
def test_the_files_are_what_the_code_says(name: str, made: object) -> None:
    assert callable(made)
    held = json.loads((DOCS / f"{name}.json").read_text("utf-8"))
    assert held == json.loads(json.dumps(made())), f"write docs/{name}.json anew"


def test_the_server_gives_the_answers_of_the_vectors(runtime: HttpRuntime) -> None:
    described = openapi()
    checked = 0

    with httpx.Client(base_url=runtime.url, timeout=10.0) as http:

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Sent:
            nonlocal checked
            response = http.request(method, path, headers=dict(headers), content=body)
            checked += conforms(described, method, path, response)
            return Sent(response.status_code, response.content)

        assert play(DOCS / "conformance.json", send) > 20
    assert checked > 15
    events = runtime.poll(1.0)
    assert [type(event) for event in events] == [Payload, Outcome]


def conforms(described: object, method: str, path: str, response: httpx.Response) -> int:
    """Check a JSON answer against the description; whether there was something to check."""
    assert isinstance(described, dict)
    operation = operation_of(described, method, path)
    if operation is None or (response.status_code == 404 and "code" not in response.text):
        return 0
    answer = operation["responses"].get(str(response.status_code))
    assert answer is not None, (method, path, response.status_code)
    content = answer.get("content", {}).get("application/json")
    if content is None:
        return 0
    schema = {**content["schema"], "components": described["components"]}
    jsonschema.Draft202012Validator(schema).validate(response.json())
    return 1


def operation_of(described: dict, method: str, path: str) -> dict | None:  # type: ignore[type-arg]
    given = path.split("?")[0].split("/")
    for template, operations in described["paths"].items():
        parts = template.split("/")
        if len(parts) == len(given) and all(
            part.startswith("{") or part == have for part, have in zip(parts, given, strict=True)
        ):
            return operations.get(method.lower())
    return None


def test_every_route_is_described(runtime: HttpRuntime) -> None:
    described = openapi()["paths"]
    assert isinstance(described, dict)
    served = {
        (route.path, method.lower())
        for route in application(runtime.server.counter, ["*"]).routes
        for method in route.methods
        if method != "HEAD"
    }
    told = {(path, method) for path, operations in described.items() for method in operations}
    assert served <= told

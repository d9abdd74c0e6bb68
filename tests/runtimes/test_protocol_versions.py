"""Minor versions of the protocol: the newest common one is spoken, and nothing newer than that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from http_fleets import QUICK, Deployed

from anabranch.aggregation.fold import FoldPlan
from anabranch.client.states import SlotFile
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Runtime, Work
from anabranch.errors import AnabranchError
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.runtimes.http import (
    ClientData,
    FleetServer,
    HttpLimits,
    HttpRuntime,
    JoinOptions,
    join,
)
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.options import Credentials
from anabranch.runtimes.http.messages import Acceptance, Contact, Hello, Summons, TaskOffer
from anabranch.runtimes.http.server.muster import Muster, Standing
from anabranch.runtimes.http.statements import Checker, Signer
from anabranch.runtimes.http.versions import (
    AMENDMENTS,
    ENCODED,
    FIRST,
    HEADER,
    MINORS,
    SPOKEN,
    Span,
    Version,
    agreed,
    as_of,
)
from anabranch.testing.runtime import RuntimeContract, SmallFleet
from anabranch.updates.sections import Section, Sections, Vector

ONLY_FIRST = Span(FIRST, FIRST)
MODEL = Sections((Section.vector("model", 3),))
SECTIONS = Sections((Section.vector("delta", 3), Section.count("weight")))
OFFER = TaskOffer(
    task="5f" * 16, kind=TaskKind.TRAIN, round=1, broadcast="9b" * 32, bytes=4, run="r"
)
FIRST_FIELDS = {
    "TaskOffer": {
        "task", "kind", "round", "draw", "fraction", "broadcast", "bytes", "run", "contract",
        "equipment", "letter", "milliseconds", "signature",
    },
    "Contact": {"task", "fates", "closed", "again"},
    "Hello": {"software", "protocols", "plan_schema", "key", "identities", "fleet"},
}  # fmt: skip
HELLO = Hello(software="0.1.0", protocols=(1, 1), plan_schema=1, key="", identities=False)


def span(text: str) -> Span:
    found = Span.parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("client", "server", "spoken"),
    [("1.0-1.2", "1.0-1.2", "1.2"), ("1.0", "1.0-1.2", "1.0"), ("1.1-1.3", "1.0-1.2", "1.2")],
)
def test_the_newest_common_version_is_spoken(client: str, server: str, spoken: str) -> None:
    assert str(agreed(span(client), span(server), software="0.1.0")) == spoken
    assert str(agreed(span(server), span(client), software="0.1.0")) == spoken


@pytest.mark.parametrize(
    ("client", "server", "end"),
    [("1.0", "1.1-1.3", "at the client"), ("1.4-1.6", "1.1-1.3", "coordinator's operator")],
)
def test_without_a_common_version_the_fix_says_what_to_install(
    client: str, server: str, end: str
) -> None:
    with pytest.raises(AnabranchError) as caught:
        agreed(span(client), span(server), software="0.3.1")
    assert caught.value.code == "AB-751"
    assert end in caught.value.fix
    assert "anabranch==0.3.1" in caught.value.fix


@pytest.mark.parametrize("text", ["", "1", "1.2-1.0", "v1.0", "1.0-", "1.0-1.2-1.3", "1.99999"])
def test_what_is_no_range_of_versions(text: str) -> None:
    assert Span.parse(text) is None


@pytest.mark.parametrize("message", [OFFER, Contact(task=OFFER), HELLO])
def test_a_message_for_the_first_version_has_the_fields_of_the_first_version(
    message: TaskOffer | Contact | Hello,
) -> None:
    """Whoever adds a field says in `MINORS` which version did, or older clients cannot read it."""
    told = json.loads(as_of(message, FIRST))
    assert set(told) == FIRST_FIELDS[type(message).__name__]
    if isinstance(message, Contact):
        assert set(told["task"]) == FIRST_FIELDS["TaskOffer"]
    newest = json.loads(as_of(message, SPOKEN.newest))
    assert set(newest) == set(type(message).model_fields)


def test_versions_are_served_back_to_the_second_one_before() -> None:
    assert [minor.version for minor in MINORS] == sorted(minor.version for minor in MINORS)
    assert SPOKEN.newest == MINORS[-1].version
    assert SPOKEN.newest.minor - SPOKEN.oldest.minor == 2


def test_a_signature_covers_what_the_version_of_the_client_has() -> None:
    coordinator = Identity.generate()
    signer, checker = Signer(coordinator), Checker("a", coordinator.public_key)
    for version in (FIRST, AMENDMENTS, ENCODED):
        signed = signer.signed(OFFER, "a", version=version)
        checker.version = version
        checker.require(signed, signed.signature)
    checker.version = FIRST
    with pytest.raises(AnabranchError, match="AB-757"):
        checker.require(signed, signed.signature)


@dataclass
class Older(Deployed):
    """Clients that speak the first version only."""

    def _work(self, name: str) -> None:
        simulant = self.fleet.build()
        data = ClientData.of(simulant.federation, name)
        options = JoinOptions(wait=self.wait, timeout=10.0, patience=0.5, speaks=ONLY_FIRST)
        with suppress(AnabranchError):
            join(self.http.url, name, simulant.program, data, self.directory / name, options)


class TestOlderClients(RuntimeContract):
    """The whole contract of a runtime holds with clients of the oldest version."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "clients"

    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return Older(fleet, self.directory, wait=5.0 if slots is None else 0.1)

    def memory(self, runtime: Runtime, slots: SlotFile, client: int) -> Vector | None:
        pytest.skip("memories are looked at with clients of the newest version")


@pytest.fixture
def served() -> Iterator[HttpRuntime]:
    limits = HttpLimits(poll_seconds=1.0, farewell_seconds=0.1)
    made = HttpRuntime(["a"], MODEL, limits=limits)
    yield made
    made.close()


def test_the_server_leaves_out_what_is_newer_and_says_what_it_speaks(served: HttpRuntime) -> None:
    with httpx.Client(base_url=served.url) as http:
        plain = http.get("/hello")
        assert set(plain.json()) == FIRST_FIELDS["Hello"]
        assert HEADER not in plain.headers
        newer = http.get("/hello", headers={HEADER: "1.1-1.9"})
        assert newer.json()["protocol"] == newer.headers[HEADER] == str(SPOKEN.newest)
        contact = http.get("/v1/tasks?client=a&wait=0").json()
        assert set(contact) == FIRST_FIELDS["Contact"]
        for path in ("/hello", "/v1/tasks?client=a&wait=0", "/v1/blobs/" + "0" * 64):
            refused = http.get(path, headers={HEADER: "1.7-1.9"})
            assert (refused.status_code, refused.json()["code"]) == (426, "AB-751")
            assert "anabranch==" in refused.json()["fix"]


@pytest.mark.parametrize("serves", [Span(AMENDMENTS, ENCODED), Span(Version(1, 3), Version(1, 5))])
def test_a_client_that_is_too_old_is_told_which_version_to_install(
    served: HttpRuntime, serves: Span
) -> None:
    served.server.counter.serves = serves
    with pytest.raises(AnabranchError, match="AB-751") as caught:
        Line(served.url, "a", JoinOptions(patience=1.0, speaks=ONLY_FIRST)).hello()
    assert "at the client: pip install 'anabranch==" in caught.value.fix


def test_a_coordinator_that_is_older_than_the_header_is_understood(served: HttpRuntime) -> None:
    served.server.counter.serves = ONLY_FIRST
    line = Line(served.url, "a", JoinOptions(patience=1.0, wait=0.0))
    assert line.hello().protocol == "1.0"
    assert line.contact([]) == Contact()
    assert line.version == FIRST
    line = Line(served.url, "a", JoinOptions(patience=1.0, speaks=Span(AMENDMENTS, ENCODED)))
    with pytest.raises(AnabranchError, match="AB-751"):
        line.hello()


@pytest.mark.parametrize("speaks", [ONLY_FIRST, SPOKEN])
def test_an_enrolled_client_of_any_version_believes_what_is_signed(
    tmp_path: Path, speaks: Span
) -> None:
    fleet, identity = FleetFolder.create(tmp_path / "fleet", "small"), Identity.generate()
    roster = fleet.membership().roster.added("a", identity.public_key.hex())
    fleet.publish(roster, fleet.federation())
    server = FleetServer(members=fleet, directory=tmp_path / "spool", limits=QUICK)
    try:
        runtime = HttpRuntime(["a"], MODEL, server=server)
        vectors = {"model": np.zeros(3, np.float32)}
        runtime.submit(
            Work(TaskKind.TRAIN, 1, (0,), vectors, FoldPlan(SECTIONS, 1), task="ab" * 16)
        )
        credentials = Credentials(identity, fleet.coordinator().public_key)
        line = Line(server.url, "a", JoinOptions(patience=2.0, speaks=speaks), credentials)
        line.hello()
        offer = line.contact([]).task
        assert offer is not None
        assert offer.signature
        assert line.version == speaks.newest
    finally:
        server.close()


# Who is given work ---------------------------------------------------------------------------


def muster(tmp_path: Path, clock: Callable[[], float] = lambda: 0.0) -> Muster:
    return Muster("r", "ab" * 32, amended=True, book=tmp_path / "accepted", clock=clock)


def test_acceptance_is_asked_for_again_after_a_no_and_kept_after_a_yes(tmp_path: Path) -> None:
    now = [0.0]
    asked = muster(tmp_path, lambda: now[0])
    for name in ("a", "b"):
        asked.speaks(name, SPOKEN.newest)
        assert asked.summons(name) == Summons(run="r", contract="ab" * 32)
    assert asked.summons("a") is None
    assert "has not answered yet" in asked.why_not("a")
    no = Acceptance(contract="ab" * 32, accepted=False, code="AB-744", reason="nobody approved")
    assert asked.answered("a", no)
    assert asked.answered("b", no.replace(accepted=True))
    assert "AB-744 nobody approved" in asked.why_not("a")
    assert asked.why_not("b") == ""
    now[0] = 60.0
    assert asked.summons("a") is not None
    assert asked.summons("b") is None
    assert not asked.answered("a", no.replace(contract="cd" * 32, accepted=True))
    again = muster(tmp_path)
    assert [s.client for s in again.standings(("a", "b")) if not s.reason] == ["b"]
    assert Muster("r", "cd" * 32, amended=True, book=tmp_path / "accepted").why_not("b")


def test_a_client_of_the_first_version_is_not_asked_and_not_waited_for(tmp_path: Path) -> None:
    asked = muster(tmp_path)
    asked.speaks("a", FIRST)
    assert asked.summons("a") is None
    assert "AB-751 it speaks protocol 1.0, and this run needs 1.1" in asked.why_not("a")
    assert asked.standings(("a",))[0].answered
    plain = Muster("r", "ab" * 32)
    plain.speaks("a", FIRST)
    assert plain.why_not("a") == ""
    assert plain.summons("a") is None
    assert plain.standings(("a", "b")) == (
        Standing("a", answered=True, willing=True),
        Standing("b", answered=False, willing=False),
    )
    plain.speaks("b", SPOKEN.newest)
    assert plain.summons("b") is not None
    assert plain.why_not("b") == ""  # judges the contract with its first task
    no = Acceptance(contract="ab" * 32, accepted=False, code="AB-744", reason="nobody approved")
    plain.answered("b", no)
    assert plain.why_not("b") == "AB-744 nobody approved"
    plain.answered("b", no.replace(accepted=True, code="", reason=""))
    assert plain.why_not("b") == ""
    encoded = Muster("r", "ab" * 32, needs=ENCODED)
    encoded.speaks("a", AMENDMENTS)
    assert "needs 1.2" in encoded.why_not("a")
    encoded.speaks("a", ENCODED)
    assert encoded.why_not("a") == ""


def test_who_has_not_answered_to_an_amended_contract_is_waited_for(tmp_path: Path) -> None:
    asked = muster(tmp_path)
    for name, version in (("a", SPOKEN.newest), ("b", SPOKEN.newest), ("c", FIRST)):
        asked.speaks(name, version)
    assert asked.answered("a", Acceptance(contract="ab" * 32, accepted=True))
    found = {s.client: (s.answered, s.willing) for s in asked.standings("abc")}
    assert found == {"a": (True, True), "b": (False, False), "c": (True, False)}

"""Kits: whole and signed, or refused; a site can read everything that it agrees to."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.client.contract import plan_of_contract
from anabranch.client.kit import KitContent, make_kit, read_kit
from anabranch.client.policy import load_policy
from anabranch.client.policy_template import POLICY_TEMPLATE
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import Roster, sign_roster
from anabranch.plan import Plan, parse_plan

COORDINATOR = Identity.from_secret(bytes(31) + b"\x06")
FEDERATION = Identity.from_secret(bytes(31) + b"\x07")
ROSTER = sign_roster(Roster(fleet="hospitals").added("va", "aa" * 32), FEDERATION)


def plan(extra: str = "") -> Plan:
    return parse_plan(
        f'schema = 1\nname = "heart"\ndata.source = "heart"\nmodel.name = "logistic"\n{extra}'
    )


def content() -> KitContent:
    return KitContent(
        COORDINATOR,
        "hospitals",
        "https://c.example",
        FEDERATION.fingerprint,
        ROSTER,
        b"PEM",
        "0.1.0",
    )


def kit_file(tmp_path: Path, made: bytes | None = None) -> Path:
    path = tmp_path / "heart.kit"
    path.write_bytes(make_kit(plan(), content()) if made is None else made)
    return path


def repacked(made: bytes, **changes: bytes | None) -> bytes:
    """The same archive with some files replaced, added or (None) left out."""
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in {**files, **changes}.items():
            if file is not None:
                archive.writestr(name, file)
    return buffer.getvalue()


def test_a_kit_holds_what_a_site_needs(tmp_path: Path) -> None:
    kit = read_kit(kit_file(tmp_path))
    assert kit.coordinator == COORDINATOR.fingerprint
    assert kit.roster == ROSTER
    assert kit.facts.url == "https://c.example"
    assert plan_of_contract(kit.contract, kit.facts.contract).contract() == plan().contract()
    assert kit.files["ca.crt"] == b"PEM"
    assert "logistic" in kit.files["contract.txt"].decode()
    assert kit.code == ()


def test_equal_plans_give_equal_kits() -> None:
    assert make_kit(plan(), content()) == make_kit(plan(), content())
    assert make_kit(plan(), content()) != make_kit(plan("rounds.count = 7"), content())


def test_code_of_the_contract_comes_along_for_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kitmodels.py").write_text(
        "from anabranch.algorithms import FedAvg\n\n\nclass Own(FedAvg):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = plan('algorithm.name = "kitmodels:Own"')
    kit = read_kit(kit_file(tmp_path, make_kit(own, content())))
    assert kit.code == ("code/kitmodels.py",)
    assert b"class Own" in kit.files["code/kitmodels.py"]


def test_changed_kits_are_refused(tmp_path: Path) -> None:
    made = make_kit(plan(), content())
    other = make_kit(plan("rounds.count = 7"), content())
    with zipfile.ZipFile(io.BytesIO(other)) as archive:
        contract = archive.read("contract.json")
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        manifest = json.loads(archive.read("kit.json"))
    manifest["facts"]["url"] = "https://evil.example"
    bad = {
        "contract.json was changed": repacked(made, **{"contract.json": contract}),
        "extra.txt was changed, added": repacked(made, **{"extra.txt": b""}),
        "taken away": repacked(made, **{"policy.toml": None}),
        "no readable": repacked(made, **{"kit.json": None}),
        "signature does not fit": repacked(made, **{"kit.json": json.dumps(manifest).encode()}),
        "file of the name": repacked(made, **{"../evil.py": b""}),
        "ZIP archive": made[: len(made) // 2],
        "whole ZIP": b"",
    }
    for why, raw in bad.items():
        with pytest.raises(AnabranchError, match=rf"AB-746.*{why}"):
            read_kit(kit_file(tmp_path, raw))
    with pytest.raises(AnabranchError, match="AB-746"):
        read_kit(tmp_path / "absent.kit")


def test_a_kit_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kit.json", bytes(65 * 2**20))
    with pytest.raises(AnabranchError, match=r"AB-746.*64 MiB"):
        read_kit(kit_file(tmp_path, buffer.getvalue()))


def test_a_roster_of_another_federation_is_refused(tmp_path: Path) -> None:
    wrong = KitContent(
        COORDINATOR, "f", "u", FEDERATION.fingerprint, sign_roster(ROSTER.roster, COORDINATOR)
    )
    with pytest.raises(AnabranchError, match="AB-735"):
        read_kit(kit_file(tmp_path, make_kit(plan(), wrong)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made = bytearray(make_kit(plan(), content()))
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(0, len(made) - 1))] ^= data.draw(st.integers(1, 255))
    path = kit_file(tmp_path_factory.mktemp("kit"), bytes(made))
    try:
        kit = read_kit(path)
    except AnabranchError as error:
        if error.code not in ("AB-746", "AB-735"):
            raise
        return
    good = read_kit(kit_file(path.parent))  # what changed was a date or a flag of the archive
    assert (kit.facts, kit.files) == (good.facts, good.files)


def test_the_template_is_a_policy_and_names_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY_TEMPLATE)
    load_policy(path)
    freed = "\n".join(
        line[2:] if line.startswith("# ") and " = " in line else line
        for line in POLICY_TEMPLATE.splitlines()[4:]
    )
    path.write_text(freed)
    policy = load_policy(path)
    for table, entries in tomllib.loads(freed).items():
        assert set(entries) == set(type(getattr(policy, table)).model_fields)

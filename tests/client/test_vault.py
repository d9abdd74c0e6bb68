"""The vault: what it holds is unreadable without its key, and nothing changed goes unnoticed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.client import vault as vault_module
from anabranch.client.vault import FileKey, KeyringKey, PassphraseKey, Vault, VaultKey, open_vault
from anabranch.errors import AnabranchError

SECRET = b"the client's memory of round 7"


def keys(tmp_path: Path) -> list[VaultKey]:
    return [PassphraseKey(b"correct horse"), FileKey(tmp_path / "elsewhere" / "va.key")]


@pytest.mark.parametrize("which", [0, 1])
def test_content_comes_back_and_is_unreadable_on_the_disk(tmp_path: Path, which: int) -> None:
    key = keys(tmp_path)[which]
    opened = open_vault(tmp_path / "v", key)
    opened.put("memory", SECRET)
    opened.put("empty", b"")
    again = open_vault(tmp_path / "v", key)
    assert again.get("memory") == SECRET
    assert again.get("empty") == b""
    assert again.get("absent") is None
    assert list(again.names()) == ["empty", "memory"]
    assert list(again.names("mem")) == ["memory"]
    for path in (tmp_path / "v").iterdir():
        assert SECRET not in path.read_bytes()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    again.delete("memory")
    again.delete("memory")
    assert again.get("memory") is None


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    open_vault(tmp_path / "v", PassphraseKey(b"right")).put("memory", SECRET)
    wrong: list[VaultKey] = [
        PassphraseKey(b"wrong"),
        PassphraseKey(b""),
        FileKey(tmp_path / "k" / "new.key"),
    ]
    for key in wrong:
        with pytest.raises(AnabranchError, match="AB-731"):
            open_vault(tmp_path / "v", key)
    assert not (tmp_path / "k").exists()  # no key is made for a vault that has one


def test_a_lost_or_damaged_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k" / "va.key"
    open_vault(tmp_path / "v", FileKey(path))
    for content in (b"xyz", b"00", os.urandom(32).hex().encode()):
        path.write_bytes(content)
        with pytest.raises(AnabranchError, match="AB-731"):
            open_vault(tmp_path / "v", FileKey(path))
    path.unlink()
    with pytest.raises(AnabranchError, match=r"AB-731.*va\.key"):
        open_vault(tmp_path / "v", FileKey(path))


@pytest.mark.parametrize("place", ["v/va.key", "v/deep/va.key", "data/va.key", "data/sub/va.key"])
def test_a_key_file_never_lies_beside_what_it_protects(tmp_path: Path, place: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(AnabranchError, match="AB-747"):
        open_vault(tmp_path / "v", FileKey(tmp_path / place), apart_from=[tmp_path / "data"])
    assert not (tmp_path / place).exists()


def test_a_key_file_does_not_lie_beside_a_data_file(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(AnabranchError, match="AB-747"):
        open_vault(tmp_path / "v", FileKey(tmp_path / "va.key"), apart_from=[tmp_path / "data.csv"])


def test_files_cannot_stand_in_for_one_another(tmp_path: Path) -> None:
    opened = open_vault(tmp_path / "v", PassphraseKey(b"x"))
    opened.put("committed", b"new")
    opened.put("pending", b"other")
    os.replace(tmp_path / "v" / "pending.sealed", tmp_path / "v" / "committed.sealed")
    with pytest.raises(AnabranchError, match=r"AB-747.*committed"):
        opened.get("committed")


def small_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    monkeypatch.setattr(vault_module, "_SEGMENT", 8)
    return open_vault(tmp_path / "v", PassphraseKey(b"x"))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17, 40])
def test_segments_join_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    opened = small_segments(tmp_path, monkeypatch)
    content = bytes(range(size))
    assert opened.open("p", opened.seal("p", content), tmp_path) == content


def test_segments_cannot_be_dropped_moved_or_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = small_segments(tmp_path, monkeypatch)
    sealed = opened.seal("p", bytes(range(24)))
    head, a, b, c = sealed[:16], *(sealed[start : start + 36] for start in (16, 52, 88))
    assert opened.open("p", head + a + b + c, tmp_path) == bytes(range(24))
    older = opened.seal("p", bytes(24))
    mixed = older[16:52] + b + c
    for body in (a + b, b + c, a + c, b + a + c, a + b + c + c, mixed, a + b + c[:-1], b""):
        for start in (head, older[:16]):
            with pytest.raises(AnabranchError, match="AB-747"):
                opened.open("p", start + body, tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_bit_may_change(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("vault")
    opened = Vault(folder, bytes(32), "passphrase")
    opened.put("memory", SECRET)
    path = folder / "memory.sealed"
    sealed = bytearray(path.read_bytes())
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(sealed))
    with pytest.raises(AnabranchError, match="AB-747"):
        opened.get("memory")


def test_a_damaged_or_lost_header_is_not_a_new_vault(tmp_path: Path) -> None:
    opened = open_vault(tmp_path, PassphraseKey(b"x"))
    opened.put("memory", SECRET)
    header = (tmp_path / "vault.json").read_text()
    for bad in ("", "{}", header.replace('"n":32768', '"n":1073741824')):
        (tmp_path / "vault.json").write_text(bad)
        with pytest.raises(AnabranchError, match="AB-747"):
            open_vault(tmp_path, PassphraseKey(b"x"))
    (tmp_path / "vault.json").unlink()
    with pytest.raises(AnabranchError, match="AB-747"):
        open_vault(tmp_path, PassphraseKey(b"x"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    opened = Vault(tmp_path, bytes(32), "passphrase")
    with pytest.raises(ValueError, match="no name"):
        opened.put(name, b"")


def test_a_keyring_holds_the_key(tmp_path: Path) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class InMemory(KeyringBackend):
        priority = 1.0

        def __init__(self) -> None:
            self.held: dict[tuple[str, str], str] = {}

        def get_password(self, service: str, username: str) -> str | None:
            return self.held.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.held[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.held[service, username]

    before = keyring.get_keyring()
    try:
        backend = InMemory()
        keyring.set_keyring(backend)
        open_vault(tmp_path, KeyringKey()).put("memory", SECRET)
        assert open_vault(tmp_path, KeyringKey()).get("memory") == SECRET
        backend.held.clear()
        with pytest.raises(AnabranchError, match=r"AB-731.*keyring has no key"):
            open_vault(tmp_path, KeyringKey())
    finally:
        keyring.set_keyring(before)

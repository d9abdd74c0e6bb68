"""Which key opens a home: what was said, what it was made with, what the environment has."""

from __future__ import annotations

from pathlib import Path

import pytest

from anabranch.client.home import ClientHome
from anabranch.client.keys import choose_key, read_passphrase
from anabranch.client.vault import FileKey, KeyringKey, PassphraseKey
from anabranch.errors import AnabranchError

SECRET = {"ANABRANCH_PASSPHRASE": "secret"}


def test_what_was_said_counts(tmp_path: Path) -> None:
    assert choose_key(tmp_path, SECRET, passphrase=b"x") == PassphraseKey(b"x")
    assert choose_key(tmp_path, SECRET, key_file=tmp_path / "k") == FileKey(tmp_path / "k")
    assert choose_key(tmp_path, SECRET, keyring=True) == KeyringKey()


def test_a_new_home_takes_the_environment_or_the_users_settings(tmp_path: Path) -> None:
    assert choose_key(tmp_path, SECRET) == PassphraseKey(b"secret")
    chosen = choose_key(tmp_path / "va", {"XDG_CONFIG_HOME": str(tmp_path / "cfg")})
    assert isinstance(chosen, FileKey)
    assert chosen.path.parent == tmp_path / "cfg" / "anabranch" / "keys"
    other = choose_key(tmp_path / "hu", {"XDG_CONFIG_HOME": str(tmp_path / "cfg")})
    assert other != chosen


def test_an_old_home_is_opened_with_what_it_was_made_with(tmp_path: Path) -> None:
    key = FileKey(tmp_path / "keys" / "va.key")
    ClientHome(tmp_path / "va", key).close()
    chosen = choose_key(tmp_path / "va", SECRET)
    assert chosen == key
    ClientHome(tmp_path / "va", chosen).close()
    ClientHome(tmp_path / "hu", PassphraseKey(b"secret")).close()
    ClientHome(tmp_path / "hu", choose_key(tmp_path / "hu", SECRET)).close()
    with pytest.raises(AnabranchError, match="AB-731"):
        ClientHome(tmp_path / "hu", choose_key(tmp_path / "hu", {}))


def test_passphrases_from_files(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    file.write_text("first line\nsecond\n")
    assert read_passphrase(file, {}) == b"first line"
    assert read_passphrase(None, SECRET) == b"secret"
    assert read_passphrase(None, {}) is None
    file.write_text("\n")
    for bad in (file, tmp_path / "absent"):
        with pytest.raises(AnabranchError, match="AB-731"):
            read_passphrase(bad, {})

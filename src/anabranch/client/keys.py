"""Which key opens a client's vault, when its operator has not said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from anabranch.client.vault import (
    HEADER,
    FileKey,
    KeyringKey,
    PassphraseKey,
    VaultKey,
    made_with,
)
from anabranch.errors import AnabranchError

__all__ = ["PASSPHRASE", "choose_key", "read_passphrase"]

PASSPHRASE: Final = "ANABRANCH_PASSPHRASE"
"""Environment variable that holds a passphrase."""


def choose_key(
    home: Path,
    environment: Mapping[str, str],
    *,
    passphrase: bytes | None = None,
    key_file: Path | None = None,
    keyring: bool = False,
) -> VaultKey:
    """The key of a client's home.

    What was said counts; else what the vault was made with; else, for a new one, a passphrase in
    the environment, or a key file among the user's own settings.

    Args:
        home: the client's folder.
        environment: of the process.
        passphrase: from a file or a prompt.
        key_file: a key file.
        keyring: the system's keyring.
    """
    if passphrase is not None:
        return PassphraseKey(passphrase)
    if key_file is not None:
        return FileKey(key_file)
    if keyring:
        return KeyringKey()
    made = made_with(home / "vault" / HEADER)
    if made is None:
        given = environment.get(PASSPHRASE, "")
        return PassphraseKey(given.encode()) if given else FileKey(_default(home, environment))
    kind, path = made
    if kind == "passphrase":
        return PassphraseKey(environment.get(PASSPHRASE, "").encode())
    return KeyringKey() if kind == "keyring" else FileKey(path)


def _default(home: Path, environment: Mapping[str, str]) -> Path:
    """Where a key file goes when nobody says: with the user's settings, one for each home."""
    settings = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    return Path(settings) / "anabranch" / "keys" / f"{name}.key"


def read_passphrase(path: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """The first line of a file, else what the environment says; None when neither is there.

    Raises:
        AnabranchError: AB-731 the file cannot be read or is empty.
    """
    if path is None:
        given = environment.get(PASSPHRASE, "")
        return given.encode() if given else None
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise _no_passphrase(path, error.strerror or str(error)) from error
    if not lines or not lines[0]:
        raise _no_passphrase(path, "its first line is empty")
    return lines[0]


def _no_passphrase(path: Path, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-731",
        f"{path} gives no passphrase: {why}.",
        fix="write the passphrase into the first line of the file.",
    )

"""What a client keeps on its disk, encrypted: its identity, cached models, two-phase memory.

A vault is a folder with a header and one file for each thing. Its 32-byte data key is random and
itself sealed under the key of whoever may open the vault: a passphrase (scrypt), the system's
keyring, or a key file, which never lies beside the vault or the data. Content is 16 random bytes
and then AES-256-GCM in segments of 16 MiB, each bound to the name of the thing, those random bytes,
its place and whether it is the last.

It protects what lies on a disk that is lost, copied or backed up. It does not protect from who
controls the machine while the client runs, and does not notice a folder that was replaced as a
whole by an older copy of itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import Field, ValidationError

from anabranch.disk import (
    Faults,
    explained,
    make_directory,
    no_faults,
    sync_directory,
    write_durably,
)
from anabranch.errors import AnabranchError
from anabranch.sealing import KEY_BYTES, PassphraseCost, key_of_passphrase, open_sealed, seal
from anabranch.values import Value

__all__ = ["FileKey", "KeyringKey", "PassphraseKey", "Vault", "VaultKey", "made_with", "open_vault"]

HEADER: Final = "vault.json"
_SUFFIX: Final = ".sealed"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_SEGMENT: Final = 16 * 2**20
_OVERHEAD: Final = 28  # nonce and tag of a segment
_VERSION: Final = 16  # random bytes that keep the segments of one sealing together

Kind = Literal["passphrase", "keyring", "key file"]


class VaultKey(Protocol):
    """Something that opens a vault."""

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    def key(self, vault: str, salt: bytes, cost: PassphraseCost, *, fresh: bool) -> bytes:
        """32 bytes for the vault of this id.

        Args:
            vault: id of the vault.
            salt: of the header.
            cost: of the header.
            fresh: the vault is being made: a key that does not exist yet is made too.

        Raises:
            AnabranchError: AB-731 there is no such key.
        """
        ...


@dataclass(frozen=True)
class PassphraseKey:
    """A passphrase."""

    passphrase: bytes = field(repr=False)
    kind: Kind = "passphrase"

    def key(self, vault: str, salt: bytes, cost: PassphraseCost, *, fresh: bool) -> bytes:
        """Derived by scrypt."""
        if not self.passphrase:
            raise _locked("no passphrase was given")
        return key_of_passphrase(self.passphrase, salt, cost)


@dataclass(frozen=True)
class FileKey:
    """A file that holds 32 bytes as hexadecimal; made with the vault when absent."""

    path: Path
    kind: Kind = "key file"

    def key(self, vault: str, salt: bytes, cost: PassphraseCost, *, fresh: bool) -> bytes:
        """What the file says."""
        if fresh and not self.path.exists():
            with explained(self.path, "writing a key file"):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = os.urandom(KEY_BYTES).hex().encode() + b"\n"
                write_durably(self.path, content, "key", mode=0o600)
        try:
            key = bytes.fromhex(self.path.read_text("ascii"))
        except (OSError, ValueError) as error:
            raise _locked(f"the key file {self.path} cannot be read") from error
        if len(key) != KEY_BYTES:
            raise _locked(f"the key file {self.path} does not hold {KEY_BYTES} bytes")
        return key


@dataclass(frozen=True)
class KeyringKey:
    """The keyring of the operating system, through the package ``keyring``."""

    service: str = "anabranch"
    kind: Kind = "keyring"

    def key(self, vault: str, salt: bytes, cost: PassphraseCost, *, fresh: bool) -> bytes:
        """The entry of this vault; made when the vault is."""
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError as error:
            raise _locked("the package keyring is not installed") from error
        try:
            if fresh and keyring.get_password(self.service, vault) is None:
                keyring.set_password(self.service, vault, os.urandom(KEY_BYTES).hex())
            held = keyring.get_password(self.service, vault)
        except KeyringError as error:
            raise _locked(f"the keyring does not open ({type(error).__name__})") from error
        if held is None:
            raise _locked("the keyring has no key for this vault")
        return bytes.fromhex(held)


class _Header(Value):
    anabranch_vault: int = Field(default=1, ge=1, le=1)
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    kind: Kind
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    n: int
    r: int
    p: int
    sealed_key: str = Field(pattern=r"^[0-9a-f]{120}$")
    key_file: str = Field(default="", max_length=4096)
    """Where the key file was when the vault was made; the place is no secret."""

    @property
    def cost(self) -> PassphraseCost:
        return PassphraseCost(self.n, self.r, self.p)


class Vault:
    """An open vault; get one from `open_vault`.

    Attributes:
        path: its folder.
        kind: what opened it.
        faults: told about every step of `put` (tests).
    """

    def __init__(self, path: Path, key: bytes, kind: Kind) -> None:
        self.path, self.kind, self._key = path, kind, key
        self.faults: Faults = no_faults

    def seal(self, purpose: str, content: bytes) -> bytes:
        """Encrypt ``content`` for a purpose, for callers that keep files of their own."""
        starts = range(0, max(len(content), 1), _SEGMENT)
        version, view = os.urandom(_VERSION), memoryview(content)
        return version + b"".join(
            seal(
                self._key,
                view[start : start + _SEGMENT],
                _place(purpose, version, start, start == starts[-1]),
            )
            for start in starts
        )

    def open(self, purpose: str, sealed: bytes, where: Path) -> bytes:
        """The inverse of `seal`.

        Args:
            purpose: the one that it was sealed for.
            sealed: the bytes.
            where: the file that they came from, for the message.

        Raises:
            AnabranchError: AB-747 the file was damaged, changed, or is another one.
        """
        version, body = sealed[:_VERSION], memoryview(sealed)[_VERSION:]
        step = _SEGMENT + _OVERHEAD
        starts = range(0, max(len(body), 1), step)
        parts = []
        for number, start in enumerate(starts):
            place = _place(purpose, version, number * _SEGMENT, start == starts[-1])
            part = open_sealed(self._key, body[start : start + step], place)
            if part is None:
                raise _damaged(where)
            parts.append(part)
        return b"".join(parts)

    def put(self, name: str, content: bytes) -> None:
        """Keep ``content`` under ``name``, durably; it replaces what was there.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        path = self._file(name)
        with explained(path, "writing the client's vault"):
            write_durably(path, self.seal(name, content), "vault", self.faults, mode=0o600)

    def get(self, name: str) -> bytes | None:
        """What is kept under ``name``; None when nothing is.

        Raises:
            AnabranchError: AB-747 the file was damaged or changed.
        """
        path = self._file(name)
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return None
        return self.open(name, sealed, path)

    def delete(self, name: str) -> None:
        """Forget ``name``; nothing happens when it is not there."""
        path = self._file(name)
        with explained(path, "deleting from the client's vault"):
            path.unlink(missing_ok=True)
            sync_directory(self.path, "vault")

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with ``prefix``, in order."""
        for path in sorted(self.path.glob(f"{prefix}*{_SUFFIX}")):
            yield path.name.removesuffix(_SUFFIX)

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for the vault")
        return self.path / f"{name}{_SUFFIX}"


def open_vault(path: Path, key: VaultKey, *, apart_from: Sequence[Path] = ()) -> Vault:
    """Open the vault in ``path``, or make one there.

    Args:
        path: its folder, made when absent.
        key: what opens it.
        apart_from: folders of data; a key file must lie in none of them, nor in the vault.

    Raises:
        AnabranchError: AB-731 the key is missing or wrong, AB-747 the header is damaged, or the key
            file lies beside what it protects, AB-6xx from the disk.
    """
    path = Path(path)
    if isinstance(key, FileKey):
        _require_apart(key.path, (path, *apart_from))
    with explained(path, "opening the client's vault"):
        make_directory(path, "vault")
        path.chmod(0o700)
    if not (path / HEADER).exists():
        return _made(path, key)
    header = _header(path / HEADER)
    if header.kind != key.kind:
        raise _locked(f"the vault was made with a {header.kind}, not with a {key.kind}")
    outer = key.key(header.id, bytes.fromhex(header.salt), header.cost, fresh=False)
    inner = open_sealed(outer, bytes.fromhex(header.sealed_key), _key_purpose(header.id))
    if inner is None:
        raise _locked(f"the {header.kind} is not the one that the vault was made with")
    return Vault(path, inner, header.kind)


def made_with(header: Path) -> tuple[Kind, Path] | None:
    """What opens the vault with this header, and where its key file was; None without a vault.

    Raises:
        AnabranchError: AB-747 the header is damaged.
    """
    if not header.exists():
        return None
    found = _header(header)
    return found.kind, Path(found.key_file)


def _made(path: Path, key: VaultKey) -> Vault:
    if any(path.glob(f"*{_SUFFIX}")):
        raise _damaged(path / HEADER)
    vault, salt, cost = os.urandom(16).hex(), os.urandom(16), PassphraseCost()
    inner, outer = os.urandom(KEY_BYTES), key.key(vault, salt, cost, fresh=True)
    header = _Header(
        id=vault,
        kind=key.kind,
        salt=salt.hex(),
        n=cost.n,
        r=cost.r,
        p=cost.p,
        sealed_key=seal(outer, inner, _key_purpose(vault)).hex(),
        key_file=str(key.path.resolve()) if isinstance(key, FileKey) else "",
    )
    with explained(path, "making the client's vault"):
        write_durably(path / HEADER, header.model_dump_json().encode(), "vault", mode=0o600)
    return Vault(path, inner, key.kind)


def _header(path: Path) -> _Header:
    try:
        header = _Header.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise _damaged(path) from error
    if not header.cost.acceptable():
        raise _damaged(path)
    return header


def _require_apart(key: Path, folders: Sequence[Path]) -> None:
    where = key.resolve().parent
    for folder in folders:
        held = folder.resolve()
        if where == held or held in where.parents or (folder.is_file() and where == held.parent):
            raise AnabranchError(
                "AB-747",
                f"the key file {key} lies beside what it protects ({folder}): who copies the "
                "folder has both.",
                fix="put the key file elsewhere, best on another medium, or use a passphrase.",
            )


def _place(purpose: str, version: bytes, start: int, last: bool) -> str:
    return f"anabranch vault/{purpose}/{version.hex()}/{start}/{'last' if last else 'more'}"


def _key_purpose(vault: str) -> str:
    return f"anabranch vault key/{vault}"


def _locked(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-731",
        f"the client's vault stays closed: {why}.",
        fix="give the passphrase, keyring or key file that it was made with.",
    )


def _damaged(path: Path) -> AnabranchError:
    return AnabranchError(
        "AB-747",
        f"{path} was damaged or changed, or belongs to another vault.",
        fix="restore the client's folder from a backup; or move it away and enrol again. A memory "
        "that is lost begins again at zero.",
        kept="Nothing was sent.",
    )

"""Identities: vectors of RFC 8032, contexts that never mix, key files that are never replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.canonical import Document, canonical_bytes, digest_of
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import Identity, fingerprint, signed_bytes, verify

RFC8032_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC8032_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_public_key_is_that_of_rfc_8032() -> None:
    assert Identity.from_secret(RFC8032_SECRET).public_key.hex() == RFC8032_PUBLIC


def test_a_signature_counts_for_its_key_context_and_message_alone() -> None:
    one, other = Identity.generate(), Identity.generate()
    signature = one.sign("task", b"work")
    assert verify(one.public_key, "task", b"work", signature)
    assert not verify(other.public_key, "task", b"work", signature)
    assert not verify(one.public_key, "fate", b"work", signature)
    assert not verify(one.public_key, "task", b"work!", signature)
    assert not verify(one.public_key, "task", b"work", signature[:-1])
    assert not verify(b"short", "task", b"work", signature)


@given(st.text("abc", min_size=1), st.binary(max_size=4), st.text("abc", min_size=1), st.binary())
def test_signed_bytes_of_different_things_differ(a: str, x: bytes, b: str, y: bytes) -> None:
    assert (signed_bytes(a, x) == signed_bytes(b, y)) == ((a, x) == (b, y))


@pytest.mark.parametrize("context", ["", "a\0b", "ä"])
def test_a_context_is_plain_text(context: str) -> None:
    with pytest.raises(ValueError, match="context"):
        signed_bytes(context, b"")


def test_printing_an_identity_does_not_show_the_secret() -> None:
    identity = Identity.generate()
    assert identity.secret.hex() not in repr(identity)
    assert repr(identity.secret) not in repr(identity)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_file_gives_the_identity_back(tmp_path: Path, passphrase: bytes | None) -> None:
    identity, path = Identity.generate(), tmp_path / "new" / "client.key"
    identity.save(path, passphrase)
    assert Identity.load(path, passphrase) == identity
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert (identity.secret in path.read_bytes()) is False


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    first = Identity.generate()
    first.save(path)
    with pytest.raises(AnabranchError, match="AB-730"):
        Identity.generate().save(path)
    assert Identity.load(path) == first


@pytest.mark.parametrize("passphrase", [None, b"", b"wrong"])
def test_a_wrong_passphrase_opens_nothing(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "client.key"
    Identity.generate().save(path, b"right")
    with pytest.raises(AnabranchError, match="AB-731"):
        Identity.load(path, passphrase)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----\n",
        b"{}",
        b'{"anabranch_key": 1, "public": "00", "salt": "", "n": 2, "r": 1, "p": 1, "sealed": ""}',
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "client.key"
    path.write_bytes(content)
    with pytest.raises(AnabranchError, match="AB-730"):
        Identity.load(path)


def test_a_key_file_cannot_ask_for_all_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    Identity.generate().save(path, b"right")
    path.write_text(path.read_text().replace('"n": 32768', '"n": 1073741824'))
    with pytest.raises(AnabranchError, match="AB-730"):
        Identity.load(path, b"right")


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match=r"AB-730.*none\.key"):
        Identity.load(tmp_path / "none.key")


def test_fingerprints_are_for_comparing() -> None:
    assert fingerprint(bytes.fromhex(RFC8032_PUBLIC)) == "21fe-31df-a154-a261-626b-f854-046f-d227"


def test_canonical_json_is_what_a_browser_writes() -> None:
    document: Document = {
        "z": 1,
        "a": {"y": 'é\u2028\x7f\x01"\\/', "b": [True, None, -(2**53) + 1]},
    }
    expected = '{"a":{"b":[true,null,-9007199254740991],"y":"é\u2028\x7f\\u0001\\"\\\\/"},"z":1}'
    assert canonical_bytes(document).decode() == expected
    assert digest_of({"a": []}) == (
        "50e8660084976a10f0b3b9b3a6352d5881cbd219b5587a26224971a60ff2cc55"
    )


@pytest.mark.parametrize("bad", [1.0, 2**53, -(2**53), {"ä": 1}, {"a": [0.5]}, b"x", "\ud800"])
def test_what_languages_write_differently_is_refused(bad: object) -> None:
    with pytest.raises(ValueError):
        canonical_bytes(bad)  # type: ignore[arg-type]  # the point of the test

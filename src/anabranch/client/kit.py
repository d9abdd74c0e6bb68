"""A kit: everything that a site needs before it takes part, in one file that can be read by hand.

It is a ZIP archive::

    kit.json          digests of the other files, addresses, keys; signed by the coordinator
    contract.json     what is learnt, from which data, how protected; its digest is agreed to
    contract.txt      the same in words
    roster.json       the signed list of members
    ca.crt            certificate authority of the server, where it has one of its own
    policy.toml       a template for the site's own policy, every entry explained
    code/…            sources of models and rules that the contract names, for review

Nothing in a kit is executed. A contract that names code runs only where a person has installed that
code, and only when its digest is the contract's.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import Field, ValidationError

from anabranch.canonical import Document, canonical_bytes
from anabranch.client.policy_template import POLICY_TEMPLATE
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import PUBLIC_KEY, SIGNATURE, Identity, fingerprint, verify
from anabranch.fleet.roster import SignedRoster
from anabranch.named import load_named
from anabranch.plan import Plan, explain
from anabranch.values import Value

__all__ = ["Kit", "KitContent", "KitFacts", "make_kit", "read_kit"]

_MANIFEST: Final = "kit.json"
_CONTRACT: Final = "contract.json"
_WORDS: Final = "contract.txt"
_ROSTER: Final = "roster.json"
_CA: Final = "ca.crt"
_POLICY: Final = "policy.toml"
_CODE: Final = "code/"
_CONTEXT: Final = "kit"
_LARGEST: Final = 64 * 2**20
_MOST_FILES: Final = 500
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,20}")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # equal content, equal kit

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KitFacts(Value):
    """What the coordinator signs."""

    anabranch_kit: int = Field(default=1, ge=1, le=1)
    fleet: str
    """Name of the fleet; empty for a kit without one."""
    url: str
    """Where the coordinator is."""
    coordinator: str = Field(pattern=PUBLIC_KEY)
    """Its public key."""
    federation: str
    """Fingerprint of the key that signs rosters."""
    contract: Sha256
    """Digest of the contract."""
    software: str
    """Version of Anabranch that made the kit."""
    files: dict[str, Sha256]
    """SHA-256 of every other file."""


class _Manifest(Value):
    facts: KitFacts
    signature: str = Field(pattern=SIGNATURE)
    """Over the canonical JSON of ``facts``, context ``kit``."""


@dataclass(frozen=True)
class KitContent:
    """What goes into a kit besides the plan.

    Attributes:
        coordinator: signs the kit.
        fleet: name of the fleet.
        url: where the coordinator is.
        federation: fingerprint of the key that signs rosters.
        roster: the signed roster, if there is one.
        ca: certificate of the server's authority, PEM.
        software: version of Anabranch.
    """

    coordinator: Identity
    fleet: str = ""
    url: str = ""
    federation: str = ""
    roster: SignedRoster | None = None
    ca: bytes = b""
    software: str = ""


@dataclass(frozen=True)
class Kit:
    """A kit that was read: whole, and signed by the coordinator that it names.

    Attributes:
        facts: what was signed.
        contract: the document whose digest is ``facts.contract``.
        roster: the roster, its signature checked against ``facts.federation``.
        files: every file by name.
    """

    facts: KitFacts
    contract: Mapping[str, object]
    roster: SignedRoster | None
    files: Mapping[str, bytes]

    @property
    def coordinator(self) -> str:
        """Fingerprint of the coordinator: compare it over another channel."""
        return fingerprint(bytes.fromhex(self.facts.coordinator))

    @property
    def code(self) -> tuple[str, ...]:
        """Names of the sources that came along."""
        return tuple(sorted(name for name in self.files if name.startswith(_CODE)))


def make_kit(plan: Plan, content: KitContent) -> bytes:
    """The kit of a plan, as the bytes of a ZIP archive; equal content gives equal bytes.

    Raises:
        AnabranchError: AB-746 a callable has no source that could be sent along, so that no site
            could read what it agrees to.
    """
    resolved = plan.resolved()
    files = {
        _CONTRACT: json.dumps(resolved.contract(), indent=1, sort_keys=True).encode() + b"\n",
        _WORDS: explain(resolved).encode(),
        _POLICY: POLICY_TEMPLATE.encode(),
        **_sources(resolved),
    }
    if content.roster is not None:
        files[_ROSTER] = content.roster.model_dump_json(indent=1).encode() + b"\n"
    if content.ca:
        files[_CA] = content.ca
    facts = KitFacts(
        fleet=content.fleet,
        url=content.url,
        coordinator=content.coordinator.public_key.hex(),
        federation=content.federation,
        contract=resolved.contract_digest,
        software=content.software,
        files={name: hashlib.sha256(file).hexdigest() for name, file in sorted(files.items())},
    )
    signature = content.coordinator.sign(_CONTEXT, canonical_bytes(_document(facts)))
    manifest = _Manifest(facts=facts, signature=signature.hex())
    return _zipped({_MANIFEST: manifest.model_dump_json(indent=1).encode() + b"\n", **files})


def read_kit(path: Path) -> Kit:
    """Read a kit and check that it is whole and signed.

    Raises:
        AnabranchError: AB-746 it is not a kit, was changed, or is larger than a kit can be; AB-735
            its roster is signed by another key than it names.
    """
    files = _unzipped(path)
    try:
        manifest = _Manifest.model_validate_json(files.pop(_MANIFEST, b""))
        contract = json.loads(files.get(_CONTRACT, b""))
        roster = SignedRoster.model_validate_json(files[_ROSTER]) if _ROSTER in files else None
    except (ValidationError, ValueError) as error:
        raise _no_kit(
            path, "it holds no readable kit.json, contract.json or roster.json"
        ) from error
    facts = manifest.facts
    key, signature = bytes.fromhex(facts.coordinator), bytes.fromhex(manifest.signature)
    if not verify(key, _CONTEXT, canonical_bytes(_document(facts)), signature):
        raise _no_kit(path, "its signature does not fit")
    found = {name: hashlib.sha256(file).hexdigest() for name, file in files.items()}
    if found != facts.files:
        odd = sorted({*found.items()} ^ {*facts.files.items()})[0][0]
        raise _no_kit(path, f"its file {odd} was changed, added or taken away")
    if roster is not None and facts.federation:
        roster.verified(facts.federation)
    return Kit(facts, contract, roster, files)


def _document(facts: KitFacts) -> Document:
    # Names of files contain dots and slashes; canonical keys need only be ASCII.
    document: Document = facts.model_dump(mode="json")
    return document


def _sources(plan: Plan) -> dict[str, bytes]:
    """The source file of every callable that the contract names, under ``code/``."""
    found: dict[str, bytes] = {}
    for reference in plan.callables:
        module = reference.name.partition(":")[0]
        try:
            target = load_named(reference.name)
            source = inspect.getsourcefile(target) if callable(target) else None
            text = Path(source or "").read_bytes()
        except (AnabranchError, OSError, TypeError) as error:
            raise AnabranchError(
                "AB-746",
                f"the source of {reference.name} cannot be read, so no site could see what it "
                "agrees to.",
                fix="put the class or function into a module that is installed here.",
                kept="No kit was made.",
            ) from error
        found[f"{_CODE}{module.replace('.', '/')}.py"] = text
    return found


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _unzipped(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(names) > _MOST_FILES or len(set(names)) < len(names):
                raise _no_kit(path, "it has too many files, or one twice")
            if sum(entry.file_size for entry in entries) > _LARGEST:
                raise _no_kit(path, f"it would unpack to more than {_LARGEST // 2**20} MiB")
            for name in names:
                if not _NAME.fullmatch(name) or ".." in PurePosixPath(name).parts:
                    raise _no_kit(path, f"it has a file of the name {name!r}")
            return {entry.filename: _read(archive, entry) for entry in entries}
    except OSError as error:
        raise _no_kit(path, f"it cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _no_kit(path, "it is not a whole ZIP archive") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:  # reads no further than the size that was declared
        return file.read(entry.file_size)


def _no_kit(path: Path, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-746",
        f"{path} is not a kit: {why}.",
        fix="get the file again from the coordinator's operator (`anabranch kit` makes it).",
        kept="Nothing was read from it.",
    )

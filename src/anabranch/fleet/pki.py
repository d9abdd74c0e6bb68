"""A certificate authority for trials, and what to say when a certificate does not count.

`make_authority` and `issue` write what a federation needs to speak TLS without a public authority:
a CA certificate for the clients, a certificate and key for the server (EC P-256, SHA-256). It is
for trials and closed networks; a site with an authority of its own uses that.

Identities do not rest on TLS: the coordinator's Ed25519 key is pinned at enrolment, and tasks,
fates and receipts are signed with it. TLS keeps others from reading along.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from anabranch.disk import explained, write_durably
from anabranch.errors import AnabranchError

__all__ = [
    "CA_CERTIFICATE",
    "CA_KEY",
    "SERVER_CERTIFICATE",
    "SERVER_KEY",
    "certificate_problem",
    "check_server_files",
    "issue",
    "make_authority",
]

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
SERVER_CERTIFICATE: Final = "server.crt"
SERVER_KEY: Final = "server.key"

_SLACK: Final = timedelta(days=1)
"""Certificates count from a day before: clocks of new machines are often wrong by hours."""

_EXPIRED, _NOT_YET = 10, 9  # OpenSSL's X509_V_ERR codes
_OTHER_HOST: Final = frozenset({62, 64})


def make_authority(folder: Path, name: str, days: int, *, now: datetime | None = None) -> None:
    """Write ``ca.crt`` and ``ca.key`` into ``folder``.

    Args:
        folder: made when absent.
        name: what the certificate calls the authority.
        days: how long it counts.
        now: for tests.

    Raises:
        AnabranchError: AB-730 there is an authority already, AB-6xx from the disk.
    """
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder, CA_CERTIFICATE, CA_KEY, certificate, key)


def issue(
    authority: Path, folder: Path, hosts: Sequence[str], days: int, *, now: datetime | None = None
) -> None:
    """Write ``server.crt`` and ``server.key`` for a server into ``folder``.

    Args:
        authority: folder with ``ca.crt`` and ``ca.key``.
        folder: made when absent.
        hosts: names and addresses under which clients will find the server.
        days: how long the certificate counts.
        now: for tests.

    Raises:
        AnabranchError: AB-730 the authority cannot be read, or there is a server key already;
            AB-6xx from the disk.
    """
    now = now or datetime.now(UTC)
    ca, ca_key = _authority(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write(folder, SERVER_CERTIFICATE, SERVER_KEY, certificate, key)


def check_server_files(
    certificate: Path, key: Path, hosts: Sequence[str] = (), *, now: datetime | None = None
) -> None:
    """Look at a server's certificate before clients have to.

    Args:
        certificate: PEM.
        key: PEM, without a passphrase.
        hosts: names and addresses that clients will use; none to leave that out.
        now: for tests.

    Raises:
        AnabranchError: AB-740 unreadable, of another key or for other hosts; AB-741 it does not
            count now.
    """
    now = now or datetime.now(UTC)
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        secret = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _wrong(f"{certificate} and {key} are not a certificate and its key") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if found.public_key().public_bytes(*form) != secret.public_key().public_bytes(*form):
        raise _wrong(f"{key} is not the key of {certificate}")
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        span = f"{found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}"
        raise _untimely(f"{certificate} counts from {span} only", now)
    covered = _covered(found)
    for host in hosts:
        if host not in covered:
            raise _wrong(f"{certificate} is for {', '.join(covered) or 'no host'}, not for {host}")


def certificate_problem(error: BaseException, host: str) -> AnabranchError | None:
    """What a failed TLS handshake was about; None when it was not the certificate.

    Args:
        error: what the HTTP library raised; its causes are looked through.
        host: where the client connected to.
    """
    cause = _cause(error)
    if cause is None:
        return None
    if cause.verify_code in (_EXPIRED, _NOT_YET):
        when = "has expired" if cause.verify_code == _EXPIRED else "does not count yet"
        return _untimely(f"the certificate of {host} {when}", datetime.now(UTC))
    if cause.verify_code in _OTHER_HOST:
        return _wrong(f"the certificate that answers at {host} is for another name")
    return _wrong(f"the certificate of {host} is not trusted here ({cause.verify_message})")


def _cause(error: BaseException) -> ssl.SSLCertVerificationError | None:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _covered(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
        key = load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_authority(folder) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _no_authority(folder)
    return certificate, key


def _write(
    folder: Path,
    certificate_name: str,
    key_name: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    if (folder / key_name).exists():
        raise AnabranchError(
            "AB-730",
            f"{folder / key_name} exists already: a new key would replace one in use.",
            fix="choose another folder, or move the old files away on purpose.",
        )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with explained(folder, "writing a certificate"):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / key_name, secret, "key", mode=0o600)
        public = certificate.public_bytes(Encoding.PEM)
        write_durably(folder / certificate_name, public, "certificate")


def _no_authority(folder: Path) -> AnabranchError:
    return AnabranchError(
        "AB-730",
        f"{folder} holds no certificate authority ({CA_CERTIFICATE} and {CA_KEY}).",
        fix="make one with `anabranch pki`.",
    )


def _wrong(what: str) -> AnabranchError:
    return AnabranchError(
        "AB-740",
        f"{what}.",
        fix="at a client: give the CA certificate that came with the kit (`--ca ca.crt`) and the "
        "address that the certificate names; at the server: issue one for its addresses "
        "(`anabranch pki`).",
        kept="Nothing was sent.",
    )


def _untimely(what: str, now: datetime) -> AnabranchError:
    return AnabranchError(
        "AB-741",
        f"{what}; the clock of this machine says {now:%Y-%m-%d %H:%M} UTC.",
        fix="if that is wrong, set the clock; else the server needs a new certificate "
        "(`anabranch pki`).",
        kept="Nothing was sent.",
    )

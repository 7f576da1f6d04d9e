"""The lab's certificates: two authorities, and what they vouch for. `plane` and its kubeconfigs use them.

Keys are made once and kept; a certificate is issued anew, for the same key, when it is about to expire or says
something else than it should. So a lab that is brought up again after a year has valid certificates, and those that
others hold still verify. Certificates follow RFC 5280, with the key identifiers that strict verifiers ask for.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from corral_lab import files

_VALID = datetime.timedelta(days=365)
_RENEW = datetime.timedelta(days=30)
_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """The PEM files of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate is for. To Kubernetes the common name is the user, and organizations are its groups."""

    common_name: str
    organizations: tuple[str, ...] = ()
    served_at: tuple[str, ...] = ()
    """DNS names and IP addresses, for a server; a client has none."""

    @property
    def subject(self) -> x509.Name:
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in self.organizations]
        return x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])

    def extensions(self) -> list[x509.ExtensionType]:
        """What distinguishes a server's certificate from a client's."""
        if not self.served_at:
            return [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
        # A server is a client too: etcd speaks to itself, with the certificate that it serves.
        return [
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            x509.SubjectAlternativeName([_general_name(name) for name in self.served_at]),
        ]


class Authority:
    """A certificate authority in a folder, made there when it is not yet.

    `now` is the time, in UTC, by which certificates count as fresh or due.
    """

    def __init__(self, folder: Path, name: str, now: datetime.datetime) -> None:
        self._folder = folder
        self._now = now
        self.pair = Pair(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
        self._key = _key(self.pair.key)
        self._subject = Identity(f"corral-lab-{name}").subject
        self._issue_own()

    def issue(self, name: str, identity: Identity) -> Pair:
        """A certificate for `identity`, at `<name>.crt` and `<name>.key`: the one that is there while it will do."""
        pair = Pair(certificate=self._folder / f"{name}.crt", key=self._folder / f"{name}.key")
        public_key = _key(pair.key).public_key()
        wanted = [
            x509.BasicConstraints(ca=False, path_length=None),
            *identity.extensions(),
            x509.SubjectKeyIdentifier.from_public_key(public_key),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
        ]
        if not self._still_good(pair.certificate, identity.subject, wanted):
            self._sign(pair.certificate, identity.subject, public_key, wanted)
        return pair

    def _issue_own(self) -> None:
        public_key = self._key.public_key()
        wanted = [
            x509.BasicConstraints(ca=True, path_length=0),
            _signing_only(),
            x509.SubjectKeyIdentifier.from_public_key(public_key),
        ]
        if not self._still_good(self.pair.certificate, self._subject, wanted):
            self._sign(self.pair.certificate, self._subject, public_key, wanted)

    def _still_good(self, path: Path, subject: x509.Name, wanted: Iterable[x509.ExtensionType]) -> bool:
        if not path.exists():
            return False
        there = x509.load_pem_x509_certificate(path.read_bytes())
        values = [extension.value for extension in there.extensions]
        return (
            there.subject == subject
            and there.not_valid_after_utc - self._now > _RENEW
            and all(extension in values for extension in wanted)
        )

    def _sign(
        self,
        path: Path,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        extensions: Iterable[x509.ExtensionType],
    ) -> None:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _SKEW)
            .not_valid_after(self._now + _VALID)
        )
        for extension in extensions:
            critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
            builder = builder.add_extension(extension, critical=critical)
        signed = builder.sign(self._key, hashes.SHA256())
        files.replace(path, signed.public_bytes(serialization.Encoding.PEM))


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A bare key and its public half, at `<name>.key` and `<name>.pub`: for service account tokens."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    pem = (
        _key(private)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    if not public.exists():
        files.replace(public, pem)
    return private, public


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key at `path`, made there when it is not yet."""
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.replace(path, pem)
    loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    return cast("ec.EllipticCurvePrivateKey", loaded)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )

"""Certificates of a plant of the test's own: an authority, and what it signs. EC keys, valid for two days."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge_agent.adapters.clock_system import SystemClock

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key, as PEM files."""

    cert_file: Path
    key_file: Path


class Authority:
    """An authority; `ca_file` is what others trust it by."""

    def __init__(self, folder: Path, name: str = "plant") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / f"{name}-ca.pem"
        self.ca_file.write_bytes(self._certify(self._name, self._key, is_authority=True))

    def sign(self, name: str, *, valid_in: timedelta = -_DAY) -> Signed:
        """A certificate for 127.0.0.1 in this name, valid from then on."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = Signed(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        signed.cert_file.write_bytes(self._certify(subject, key, is_authority=False, valid_in=valid_in))
        signed.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return signed

    def server_context(self, name: str = "device") -> ssl.SSLContext:
        """A server that wants a certificate of this authority from its clients."""
        signed = self.sign(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed.cert_file, signed.key_file)
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _certify(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        is_authority: bool,
        valid_in: timedelta = -_DAY,
    ) -> bytes:
        now = datetime.fromtimestamp(SystemClock().pair().utc / 1e9, UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid_in)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(address, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

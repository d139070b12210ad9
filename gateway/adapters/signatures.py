"""Ed25519 (RFC 8032): checking what agents signed, and the gateway's own key, with which it signs heads.

The gateway's key lies in a file that only its owner may read, beside the journal unless the configuration names it.
It is made at the first use. Keys and signatures travel in base64.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class KeyFileError(Exception):
    """A key file cannot be read, written or used; the text says why, and how to mend it."""


class SigningKey:
    """The gateway's key pair."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key = base64.b64encode(private.public_key().public_bytes_raw()).decode("ascii")
        """Base64 of the raw 32 bytes."""

    def sign(self, message: bytes) -> str:
        """Base64 of the signature over `message`."""
        return base64.b64encode(self._private.sign(message)).decode("ascii")


def load_or_create_key(path: Path) -> SigningKey:
    """The key in `path`, made there (mode 0600) when there is none. Raises `KeyFileError`."""
    try:
        if not path.exists():
            _create_key(path)
        pem = path.read_bytes()
        is_open = path.stat().st_mode & 0o077
    except OSError as error:
        raise KeyFileError(
            f"{path}: the gateway's signing key cannot be read or made: {error.strerror} — check path and rights"
        ) from error
    if is_open:
        raise KeyFileError(f"{path}: the gateway's signing key is open to others — chmod 600 it")
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: no signing key in it — restore it, or move it away") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key — restore it, or move it away")
    return SigningKey(private)


def read_public_key(path: Path) -> str:
    """The public key in a file: base64 of 32 bytes, as heads show it. Raises `KeyFileError`."""
    try:
        text = path.read_text("ascii").strip()
        if len(base64.b64decode(text, validate=True)) == 32:
            return text
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror} — check the path") from error
    except ValueError:
        pass
    raise KeyFileError(f"{path}: no public key in it — put the `public_key` of a journal's head there")


def is_signed_by(public_key: str, message: bytes, signature: str) -> bool:
    """Whether the base64 `signature` over `message` is by the base64 raw `public_key`; False for what is neither."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _create_key(path: Path) -> None:
    """Under its name there is a whole key or none, whatever happens meanwhile, and never a second one in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(made, path)
    made.unlink()

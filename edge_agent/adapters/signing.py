"""The agent's signing key: Ed25519, in a file beside the store that only its owner may read (RFC 8032).

The key says who wrote a chain. It is made at the first start and kept when the store is lost or replaced; the public
half travels in the birth certificate. Signatures and keys travel in base64.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_PUBLIC_KEY_BYTES: Final = 32


class KeyFileError(Exception):
    """A key file cannot be read, written or used; the text says why, and how to mend it."""


class SigningKey:
    """An Ed25519 key pair."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode("ascii")
        """Base64 of the raw 32 bytes."""

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, kept nowhere."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> str:
        """Base64 of the signature over `message`."""
        return base64.b64encode(self._private.sign(message)).decode("ascii")

    def private_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: what the key file holds."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_path(store: Path) -> Path:
    """Where a store's key lies: beside it."""
    return store.with_name(store.name + ".key")


def load_or_create_key(path: Path) -> SigningKey:
    """The key in `path`, made there (mode 0600) when there is none. Raises `KeyFileError`."""
    return _load_key(path) or _create_key(path)


def key_problem(path: Path) -> str | None:
    """Why the key in `path` could not be used; None when it could, or when there is none yet. Makes none."""
    try:
        _load_key(path)
    except KeyFileError as error:
        return str(error)
    return None


def _load_key(path: Path) -> SigningKey | None:
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot read the signing key: {error.strerror}") from error
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path}: the signing key is open to others — chmod 600 it")
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: no signing key in it — restore it, or move it away") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key — restore it, or move it away")
    return SigningKey(private)


def read_public_key(path: Path) -> str:
    """Base64 of the public key in `path`: a private or public PEM, or base64 itself. Raises `KeyFileError`."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot read the key: {error.strerror}") from error
    try:
        if b"PRIVATE KEY" in content:
            private = load_pem_private_key(content, password=None)
            public = private.public_key()
        elif content.startswith(b"-----BEGIN"):
            public = load_pem_public_key(content)
        else:
            return _checked_public_key(content.decode("ascii"))
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _checked_public_key(base64.b64encode(raw).decode("ascii"))
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: no Ed25519 key in it") from error


def is_signed(public_key: str, message: bytes, signature: str) -> bool:
    """Whether `signature` (base64) over `message` was made by the key whose public half this is."""
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        public.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _checked_public_key(text: str) -> str:
    if len(base64.b64decode(text, validate=True)) != _PUBLIC_KEY_BYTES:
        raise ValueError("not 32 bytes")
    return text


def _create_key(path: Path) -> SigningKey:
    key = SigningKey.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key.private_pem())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyFileError(f"{path}: cannot write the signing key: {error.strerror}") from error
    return key

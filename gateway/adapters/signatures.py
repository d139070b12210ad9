"""Ed25519 signatures, checked with the keys that agents publish (RFC 8032)."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def is_signed_by(public_key: str, message: bytes, signature: str) -> bool:
    """Whether the base64 `signature` over `message` is by the base64 raw `public_key`; False for what is neither."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True

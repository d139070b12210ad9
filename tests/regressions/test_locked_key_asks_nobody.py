"""A key that is locked by a password made OpenSSL ask for it on the terminal, and the whole agent waited for an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.certificates import Authority, Signed

pytestmark = pytest.mark.integration

WITH_TERMINAL = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
TO_A_DEVICE = """
from pathlib import Path
from edge_agent.adapters.fieldbus_dial import tls_context
tls_context(None, *map(Path, sys.argv[1:]))
"""
TO_A_BROKER = """
from pathlib import Path
from edge_agent.broker.access import BrokerAccess, WiredClient
from edge_agent.broker.wire import Limits
cert, key = map(Path, sys.argv[1:])
WiredClient(BrokerAccess("127.0.0.1", 1, "gw", is_tls=True, cert_file=cert, key_file=key), Limits(1, 1))
"""


@pytest.fixture
def locked(tmp_path: Path) -> Signed:
    signed = Authority(tmp_path).sign("gw")
    key = load_pem_private_key(signed.key_file.read_bytes(), password=None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    signed.key_file.write_bytes(sealed)
    return signed


@pytest.mark.parametrize("work", [TO_A_DEVICE, TO_A_BROKER], ids=["device", "broker"])
def test_a_key_that_is_locked_by_a_password_is_refused_at_once(locked: Signed, work: str) -> None:
    ours, terminal = os.openpty()
    command = [sys.executable, "-c", WITH_TERMINAL + work, str(locked.cert_file), str(locked.key_file)]
    child = subprocess.Popen(command, stdin=terminal, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, told = child.communicate(timeout=30)
    finally:
        child.kill()
        os.close(ours)
        os.close(terminal)
    assert child.returncode == 1
    assert b"SSLError" in told

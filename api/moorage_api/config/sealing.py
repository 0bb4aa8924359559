"""Encrypt and decrypt stored configuration that contains secrets, with a key from the settings."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moorage_api.errors import UnavailableError


class Sealing:
    """Encrypts with the first of `keys` and decrypts with any of them. To change the key, put a new one first."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = MultiFernet([Fernet(fernet_key(key)) for key in keys])

    def seal(self, value: dict[str, Any]) -> bytes:
        return self._fernet.encrypt(json.dumps(value).encode())

    def open(self, sealed: bytes) -> dict[str, Any]:
        """Raises UnavailableError if the value was encrypted with a key that is no longer in the settings."""
        try:
            return dict(json.loads(self._fernet.decrypt(sealed)))
        except InvalidToken:
            raise UnavailableError("A stored secret was encrypted with another key; configure it again") from None


def fernet_key(key: str) -> bytes:
    """Derive a Fernet key. It does not reveal `key`, which may be the secret that signs tokens."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"moorage sealed configuration")
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))

"""Configuration that holds secrets, as it is stored: encrypted and authenticated, under a key of the settings."""

from __future__ import annotations

import base64
import json
from typing import Any, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moorage_api.errors import UnavailableError
from moorage_api.settings import Settings


class Sealing:
    """The first of `keys` seals, all of them open: put a new one first to change it."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = MultiFernet([Fernet(fernet_key(key)) for key in keys])

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """With a key of its own, what was sealed before under the derived one can still be read."""
        derived = settings.jwt_secret.get_secret_value()
        return cls([settings.config_key.get_secret_value(), derived] if settings.config_key else [derived])

    def seal(self, value: dict[str, Any]) -> bytes:
        return self._fernet.encrypt(json.dumps(value).encode())

    def open(self, sealed: bytes) -> dict[str, Any]:
        """Raises UnavailableError for what was sealed under a key that is not there any more."""
        try:
            return dict(json.loads(self._fernet.decrypt(sealed)))
        except InvalidToken:
            raise UnavailableError("It was stored under another key: configure it again") from None


def fernet_key(key: str) -> bytes:
    """A Fernet key that says nothing of the secret it comes from, which also signs tokens."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"moorage sealed configuration")
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))

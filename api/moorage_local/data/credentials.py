"""Secrets that are created once per data directory: passwords, keys of services, and the keys that sandboxes trust."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, Field

from moorage_local.data.private_files import make_private_directory, write_private
from moorage_sandbox.messages import TrustedKey, TrustFile
from moorage_sandbox.protocol import API_SCOPES, RUNNER_SCOPES, Scope

API_KEY_ID = "api"
RUNNER_KEY_ID = "runner"


def _random() -> str:
    """Create 256 random bits, as characters that need no quoting in any file or URL."""
    return secrets.token_hex(32)


class Credentials(BaseModel):
    """All secrets except the signing keys."""

    database_password: str = Field(default_factory=_random)
    database_superuser_password: str = Field(default_factory=_random)
    redis_password: str = Field(default_factory=_random)
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = Field(default_factory=_random)
    jwt_secret: str = Field(default_factory=_random)
    admin_password: str = Field(default_factory=lambda: secrets.token_urlsafe(12))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the secrets from `path`. Missing ones (new directory, new version) are created and written."""
        stored = path.read_text() if path.exists() else "{}"
        credentials = cls.model_validate_json(stored)
        if (text := credentials.model_dump_json(indent=2)) != stored:
            write_private(path, text)
        return credentials


class SigningKeys:
    """Files in `directory`: the private keys of api and runner, and the trust file with their public keys."""

    def __init__(self, directory: Path) -> None:
        self.api = directory / "api.pem"
        self.runner = directory / "runner.pem"
        self.trust_file = directory / "trust.json"

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Create missing keys, and write the trust file if it does not match the keys."""
        make_private_directory(directory)
        keys = cls(directory)
        trusted = TrustFile(
            keys={
                API_KEY_ID: _load_trusted_key(keys.api, API_SCOPES),
                RUNNER_KEY_ID: _load_trusted_key(keys.runner, RUNNER_SCOPES),
            }
        )
        content = trusted.model_dump_json(indent=2)
        if not keys.trust_file.exists() or json.loads(keys.trust_file.read_text()) != json.loads(content):
            write_private(keys.trust_file, content)
        return keys


def _load_trusted_key(path: Path, scopes: frozenset[Scope]) -> TrustedKey:
    if path.exists():
        key = _read_key(path)
    else:
        key = Ed25519PrivateKey.generate()
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return TrustedKey(public_key=public.decode(), scopes=sorted(scopes))


def _read_key(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is not an Ed25519 key")
    return key

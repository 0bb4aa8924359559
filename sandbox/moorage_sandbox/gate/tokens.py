"""Verifies tokens against the trust file, which may change at any time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError

from moorage_sandbox.gate.errors import RefusalError
from moorage_sandbox.messages import TrustFile
from moorage_sandbox.protocol import ALGORITHM, MAX_TOKEN_SECONDS, Scope

logger = logging.getLogger(__name__)

CLOCK_SKEW_SECONDS = 5


@dataclass(frozen=True)
class Grant:
    """What a valid token allows: one session, one epoch (0 for readers without a lease) and some scopes."""

    session_id: str
    epoch: int
    scopes: frozenset[Scope]


@dataclass(frozen=True)
class TrustedSigner:
    key: Ed25519PublicKey
    scopes: frozenset[Scope]


class TrustStore:
    """The keys of the trust file. If the file becomes invalid, this is logged and the previous keys stay valid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._signers: dict[str, TrustedSigner] = {}

    def signer(self, key_id: str) -> TrustedSigner | None:
        self._reload_when_changed()
        return self._signers.get(key_id)

    def _reload_when_changed(self) -> None:
        """Read the file again if its time, inode or size changed. Kubernetes replaces a mounted file through a link."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == self._version:
                return
            self._signers = read_trust(self._path.read_bytes())
            self._version = version
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            logger.warning("The trust file is not valid; the previous keys stay valid: %s", type(error).__name__)


def read_trust(content: bytes) -> dict[str, TrustedSigner]:
    """Parse a trust file. Raises ValueError if it is invalid (pydantic's ValidationError is a ValueError)."""
    signers = {}
    for key_id, trusted in TrustFile.model_validate_json(content).keys.items():
        key = load_pem_public_key(trusted.public_key.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("a trusted key must be an Ed25519 public key")
        signers[key_id] = TrustedSigner(key, frozenset(trusted.scopes))
    return signers


def verify_token(token: str, *, trust: TrustStore, sandbox_uid: str) -> Grant:
    """Check signature, audience, lifetime and scopes of a token.

    Raises RefusalError: `unauthorized` for an invalid token, `forbidden` for a scope that its key may not give.
    """
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
        signer = trust.signer(key_id) if isinstance(key_id, str) else None
        if signer is None:
            raise RefusalError("unauthorized", "This token is not signed with a key that this sandbox trusts")
        claims = jwt.decode(
            token,
            signer.key,
            algorithms=[ALGORITHM],
            audience=sandbox_uid,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": ["exp", "iat", "aud"]},
        )
        session_id, epoch = claims["session"], claims["epoch"]
        scopes = frozenset(Scope(scope) for scope in claims["scopes"])
        if not isinstance(session_id, str) or not session_id or type(epoch) is not int or epoch < 0:
            raise ValueError("a claim has the wrong type")
        if claims["exp"] - claims["iat"] > MAX_TOKEN_SECONDS:
            raise ValueError(f"the lifetime is longer than {MAX_TOKEN_SECONDS} s")
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise RefusalError("unauthorized", "This token is not valid") from error
    if not scopes <= signer.scopes:
        raise RefusalError("forbidden", "The key that signed this token may not give all of its scopes")
    return Grant(session_id, epoch, scopes)

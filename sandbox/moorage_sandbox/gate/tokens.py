"""Who may do what: signatures checked against a trust file that may change at any time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError

from moorage_sandbox.gate.errors import RefusedError
from moorage_sandbox.messages import TrustFile
from moorage_sandbox.protocol import ALGORITHM, MAX_TOKEN_SECONDS, Scope

logger = logging.getLogger(__name__)

CLOCK_SKEW_SECONDS = 5


@dataclass(frozen=True)
class Grant:
    """What a valid token allows: one session, one epoch (0 for readers without a lease), some scopes."""

    session_id: str
    epoch: int
    scopes: frozenset[Scope]


@dataclass(frozen=True)
class TrustedSigner:
    key: Ed25519PublicKey
    scopes: frozenset[Scope]


class TrustStore:
    """The trust file as it is now. A broken file leaves the keys of the last good one in force, and is logged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._signers: dict[str, TrustedSigner] = {}

    def signer(self, key_id: str) -> TrustedSigner | None:
        self._reload_when_changed()
        return self._signers.get(key_id)

    def _reload_when_changed(self) -> None:
        """Kubernetes swaps a mounted file by a link, so the inode tells as well as the time."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == self._version:
                return
            self._signers = read_trust(self._path.read_bytes())
            self._version = version
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            logger.warning("The trust file cannot be used, the keys before stay: %s", type(error).__name__)


def read_trust(content: bytes) -> dict[str, TrustedSigner]:
    """Raises ValueError for what is no trust file (pydantic's ValidationError is one)."""
    signers = {}
    for key_id, trusted in TrustFile.model_validate_json(content).keys.items():
        key = load_pem_public_key(trusted.public_key.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("a trusted key must be an Ed25519 public key")
        signers[key_id] = TrustedSigner(key, frozenset(trusted.scopes))
    return signers


def verify(token: str, *, trust: TrustStore, sandbox_uid: str) -> Grant:
    """Raises RefusedError: `unauthorized` for what proves nothing, `forbidden` for a scope its key can't give."""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
        signer = trust.signer(key_id) if isinstance(key_id, str) else None
        if signer is None:
            raise RefusedError("unauthorized", "This token is signed by nobody this sandbox trusts")
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
            raise ValueError("claims of the wrong type")
        if claims["exp"] - claims["iat"] > MAX_TOKEN_SECONDS:
            raise ValueError("made for too long")
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise RefusedError("unauthorized", "This token is not valid") from error
    if not scopes <= signer.scopes:
        raise RefusedError("forbidden", "The key of this token may not give that scope")
    return Grant(session_id, epoch, scopes)

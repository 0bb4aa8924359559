"""Access and refresh tokens: JWTs (RFC 7519) that name a user and a login (the token family)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import jwt

from moorage_api.database import uuid7
from moorage_api.errors import UnauthenticatedError

ALGORITHM = "HS256"
Kind = Literal["access", "refresh"]


@dataclass(frozen=True)
class Claims:
    """Content of a token. `family_id` names the login; the token is valid only while the login's row exists."""

    user_id: UUID
    family_id: UUID
    jti: UUID
    expires_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class IssuedPair:
    access_token: str
    refresh_token: str
    refresh_jti: UUID
    refresh_expires_at: datetime


REMEMBERED = 10_000
"""Most access tokens to cache after their signature was checked: clients send the same token with every request."""


class Tokens:
    def __init__(self, secret: str, *, access_seconds: int, refresh_seconds: int) -> None:
        self._seen: dict[str, Claims] = {}
        self._secret = secret
        self._access = timedelta(seconds=access_seconds)
        self._refresh = timedelta(seconds=refresh_seconds)

    def issue(self, user_id: UUID, family_id: UUID, *, now: datetime) -> IssuedPair:
        refresh_jti = uuid7()
        refresh_expires_at = now + self._refresh
        return IssuedPair(
            access_token=self._encode("access", user_id, family_id, uuid7(), now, now + self._access),
            refresh_token=self._encode("refresh", user_id, family_id, refresh_jti, now, refresh_expires_at),
            refresh_jti=refresh_jti,
            refresh_expires_at=refresh_expires_at,
        )

    def read_access(self, token: str) -> Claims:
        """Like `read` for an access token, but checks the signature of the same token only once."""
        claims = self._seen.get(token)
        if claims is None or claims.expires_at <= time.time():
            self._seen.pop(token, None)
            claims = self.read(token, kind="access")
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[token] = claims
        return claims

    def read(self, token: str, *, kind: Kind) -> Claims:
        """Raises UnauthenticatedError unless `token` is a valid token of this kind."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub", "jti", "family"]}
            )
            if claims["kind"] != kind:
                raise ValueError("this is a token of the other kind")
            return Claims(UUID(claims["sub"]), UUID(claims["family"]), UUID(claims["jti"]), float(claims["exp"]))
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("This token has expired; refresh it or log in again") from error
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnauthenticatedError("This token is not valid; log in again") from error

    def _encode(
        self, kind: Kind, user_id: UUID, family_id: UUID, jti: UUID, issued_at: datetime, expires_at: datetime
    ) -> str:
        claims = {
            "kind": kind,
            "sub": str(user_id),
            "family": str(family_id),
            "jti": str(jti),
            "iat": issued_at,
            "exp": expires_at,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

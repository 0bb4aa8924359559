"""Access and refresh tokens: JWTs (RFC 7519) that name a user and the login they come from."""

from __future__ import annotations

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
    """`family_id` is the login: tokens end with its row."""

    user_id: UUID
    family_id: UUID
    jti: UUID


@dataclass(frozen=True)
class IssuedPair:
    access_token: str
    refresh_token: str
    refresh_jti: UUID
    refresh_expires_at: datetime


class Tokens:
    def __init__(self, secret: str, *, access_seconds: int, refresh_seconds: int) -> None:
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

    def read(self, token: str, *, kind: Kind) -> Claims:
        """Raises UnauthenticatedError for anything but a valid token of this kind."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], options={"require": ["exp", "sub", "jti", "family"]}
            )
            if claims["kind"] != kind:
                raise ValueError("a token of the other kind")
            return Claims(UUID(claims["sub"]), UUID(claims["family"]), UUID(claims["jti"]))
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("This token has expired") from error
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnauthenticatedError("This token is not valid") from error

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

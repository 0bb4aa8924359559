"""Accounts of users who log in through another provider: find, link or create the account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from moorage_api.clock import Clock
from moorage_api.database import Database, uuid7
from moorage_api.errors import ConflictError
from moorage_api.users.account import Account
from moorage_api.users.repository import Identity, UserRepository
from moorage_api.users.service import check_active
from moorage_api.users.tokens import IssuedPair, Tokens


@dataclass(frozen=True)
class ExternalUser:
    """A user at another provider. `identities` are all ids of this user there, the most general one first."""

    identities: Sequence[Identity]
    provider_name: str
    """Name of the provider for messages to people."""
    lock: str
    """Key of a lock, the same for every login of this user, so that two browsers cannot create two accounts."""
    nickname: str = ""
    avatar: str = ""


class IdentityService:
    def __init__(self, db: Database, tokens: Tokens, now: Clock) -> None:
        self._db = db
        self._tokens = tokens
        self._now = now

    async def log_in(self, user: ExternalUser) -> IssuedPair:
        """Log in. A new person gets an account without name and password. Raises ForbiddenError if banned."""
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            user_id = await users.find_identity(user.identities, lock=user.lock)
            if user_id is None:
                user_id = uuid7()
                await users.add(
                    user_id, username=None, email=None, password_hash=None, nickname=user.nickname, avatar=user.avatar
                )
            check_active(await users.get(user_id))
            await users.add_identities(user.identities, user_id)
            family_id = uuid7()
            pair = self._tokens.issue(user_id, family_id, now=self._now())
            await users.add_family(family_id, user_id, jti=pair.refresh_jti, expires_at=pair.refresh_expires_at)
        return pair

    async def link(self, user: ExternalUser, *, user_id: UUID) -> Account:
        """Link the person to this account for future logins. Raises ConflictError if they have another one."""
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            account = await users.get(user_id)
            check_active(account)
            found = await users.find_identity(user.identities, lock=user.lock)
            if found not in (None, user_id):
                raise ConflictError(f"This {user.provider_name} account is already linked to another user")
            await users.add_identities(user.identities, user_id)
        return account

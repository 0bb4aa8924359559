"""Find the account of a WeChat user, link one, or create one."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.clock import Clock
from moorage_api.database import Database, uuid7
from moorage_api.errors import ConflictError
from moorage_api.users.account import Account
from moorage_api.users.repository import UserRepository
from moorage_api.users.service import check_active
from moorage_api.users.tokens import IssuedPair, Tokens
from moorage_api.wechat.client import WechatUser

OPENID, UNIONID = "wechat:openid", "wechat:unionid"

FIND = text(
    """
    SELECT user_id FROM user_identities
    WHERE (provider = 'wechat:unionid' AND subject = :unionid) OR (provider = 'wechat:openid' AND subject = :openid)
    ORDER BY provider DESC LIMIT 1
    """
)
ADD_IDENTITY = text(
    """
    INSERT INTO user_identities (provider, subject, user_id) VALUES (:provider, :subject, :user_id)
    ON CONFLICT (provider, subject) DO NOTHING
    """
)
LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))")


class WechatAccounts:
    def __init__(self, db: Database, tokens: Tokens, now: Clock) -> None:
        self._db = db
        self._tokens = tokens
        self._now = now

    async def log_in(self, user: WechatUser) -> IssuedPair:
        """Log in. A new WeChat user gets an account without name and password. Raises ForbiddenError if banned."""
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            user_id = await self._find(tx, user)
            if user_id is None:
                user_id = uuid7()
                await users.add(
                    user_id, username=None, email=None, password_hash=None, nickname=user.nickname, avatar=user.avatar
                )
            check_active(await users.get(user_id))
            await self._store_identities(tx, user, user_id)
            family_id = uuid7()
            pair = self._tokens.issue(user_id, family_id, now=self._now())
            await users.add_family(family_id, user_id, jti=pair.refresh_jti, expires_at=pair.refresh_expires_at)
        return pair

    async def link(self, user: WechatUser, *, user_id: UUID) -> Account:
        """Link the WeChat user to this account for future logins. Raises ConflictError if they have another one."""
        async with self._db.begin() as tx:
            account = await UserRepository(tx).get(user_id)
            check_active(account)
            found = await self._find(tx, user)
            if found not in (None, user_id):
                raise ConflictError("This WeChat account is already linked to another user")
            await self._store_identities(tx, user, user_id)
        return account

    async def _find(self, tx: AsyncSession, user: WechatUser) -> UUID | None:
        """Find the account's id and lock this WeChat user: two browsers must not create two accounts."""
        await tx.execute(LOCK, {"subject": f"wechat {user.unionid or user.openid}"})
        found: UUID | None = await tx.scalar(FIND, {"unionid": user.unionid, "openid": user.openid})
        return found

    async def _store_identities(self, tx: AsyncSession, user: WechatUser, user_id: UUID) -> None:
        """Store both ids, also one that was unknown before: the unionid finds the same person in another app."""
        for provider, subject in ((OPENID, user.openid), (UNIONID, user.unionid)):
            if subject:
                await tx.execute(ADD_IDENTITY, {"provider": provider, "subject": subject, "user_id": user_id})

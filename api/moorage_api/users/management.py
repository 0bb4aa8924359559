"""Changes that admins make to the accounts of other users."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import ForbiddenError
from moorage_api.events.hub import Hub
from moorage_api.users.account import Account, Status
from moorage_api.users.repository import UserRepository


class AccountManagement:
    def __init__(self, db: Database, hub: Hub) -> None:
        self._db = db
        self._hub = hub

    async def list_page(self, *, skip: int, limit: int) -> tuple[list[Account], int]:
        async with self._db() as tx:
            return await UserRepository(tx).list_page(skip=skip, limit=limit)

    async def get(self, user_id: UUID) -> Account:
        async with self._db() as tx:
            return await UserRepository(tx).get(user_id)

    async def set_status(self, user_id: UUID, status: Status, *, by: Account) -> None:
        """Change the status. A ban takes effect at once and ends open streams and VNC connections.

        A reactivated user has to log in again: their old tokens stay invalid. Raises NotFoundError, ForbiddenError.
        """
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            account = await self._another_user(tx, user_id, by=by)
            await users.set_status(user_id, status)
            if status == "active" and account.status != "active":
                await users.end_logins(user_id)
        if status != "active":
            await self._hub.publish_access_lost(user_id)

    async def ban(self, user_id: UUID, *, by: Account) -> None:
        """Ban the user at once. Raises NotFoundError, ForbiddenError."""
        async with self._db.begin() as tx:
            await self._another_user(tx, user_id, by=by)
            await UserRepository(tx).set_status(user_id, "banned")
        await self._hub.publish_access_lost(user_id)

    async def delete(self, user_id: UUID) -> None:
        """Delete the account with its logins. The caller has banned it and removed what belongs to it."""
        async with self._db.begin() as tx:
            await UserRepository(tx).delete(user_id)

    async def _another_user(self, tx: AsyncSession, user_id: UUID, *, by: Account) -> Account:
        """Read and lock the account. Raises ForbiddenError for the admin's own account and for other admins."""
        account = await UserRepository(tx).get(user_id)
        if account.id == by.id:
            raise ForbiddenError("You cannot do this to your own account")
        if account.is_admin:
            raise ForbiddenError("You cannot do this to another super_admin")
        return account

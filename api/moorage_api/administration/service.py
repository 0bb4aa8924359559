"""What admins do with accounts: list, ban, reactivate, delete."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import ForbiddenError, UnavailableError
from moorage_api.events.hub import Hub
from moorage_api.files.service import FileService
from moorage_api.sessions.service import SessionService
from moorage_api.users.account import Account, Status
from moorage_api.users.repository import UserRepository


class UserManagement:
    def __init__(self, db: Database, hub: Hub, sessions: SessionService, files: FileService) -> None:
        self._db = db
        self._hub = hub
        self._sessions = sessions
        self._files = files

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

    async def delete(self, user_id: UUID, *, by: Account) -> None:
        """Delete the account with its sessions, sandboxes, files and logins.

        The user is banned first, so that they cannot create anything meanwhile. Raises NotFoundError, ForbiddenError,
        and UnavailableError if something could not be removed now: the user stays banned, and the next call continues.
        """
        async with self._db.begin() as tx:
            await self._another_user(tx, user_id, by=by)
            await UserRepository(tx).set_status(user_id, "banned")
        await self._hub.publish_access_lost(user_id)
        if left := await self._sessions.delete_all_of(user_id):
            raise UnavailableError(
                f"The user is banned, but {left} of their sessions could not be removed: delete the user again later"
            )
        await self._files.delete_all_of(user_id)
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

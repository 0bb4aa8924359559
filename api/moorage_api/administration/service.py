"""Remove a user with everything that belongs to them."""

from __future__ import annotations

from uuid import UUID

from moorage_api.errors import UnavailableError
from moorage_api.files.service import FileService
from moorage_api.sessions.service import SessionService
from moorage_api.users.account import Account
from moorage_api.users.management import AccountManagement


class UserRemoval:
    def __init__(self, accounts: AccountManagement, sessions: SessionService, files: FileService) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._files = files

    async def delete(self, user_id: UUID, *, by: Account) -> None:
        """Delete the account with its sessions, sandboxes, files and logins.

        The user is banned first, so that they cannot create anything meanwhile. Raises NotFoundError, ForbiddenError,
        and UnavailableError if something could not be removed now: the user stays banned, and the next call continues.
        """
        await self._accounts.ban(user_id, by=by)
        if left := await self._sessions.delete_all_of(user_id):
            raise UnavailableError(
                f"The user is banned, but {left} of their sessions could not be removed: delete the user again later"
            )
        await self._files.delete_all_of(user_id)
        await self._accounts.delete(user_id)

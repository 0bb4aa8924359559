"""Create admins and reset passwords, from settings or from the command line. HTTP offers neither."""

from __future__ import annotations

from moorage_api.database import Database, uuid7
from moorage_api.errors import NotFoundError
from moorage_api.users.passwords import CONTEXT
from moorage_api.users.repository import UserRepository
from moorage_api.users.schemas import normalize_name


async def ensure_admin(db: Database, *, username: str, password: str) -> bool:
    """Create the account unless a `super_admin` exists. True if it was created.

    Raises ConflictError if the name belongs to a user who is not an admin.
    """
    async with db.begin() as tx:
        users = UserRepository(tx)
        if await users.has_admin():
            return False
        await add_admin(users, username=username, password=password)
        return True


async def create_admin(db: Database, *, username: str, password: str) -> None:
    """Create another `super_admin`. Raises ConflictError if the name is taken."""
    async with db.begin() as tx:
        await add_admin(UserRepository(tx), username=username, password=password)


async def reset_password(db: Database, *, username: str, password: str) -> None:
    """Give an account a new password and end its logins. Raises NotFoundError."""
    async with db.begin() as tx:
        users = UserRepository(tx)
        found = await users.find_by_name_or_email(normalize_name(username), None)
        if found is None:
            raise NotFoundError(f"There is no user named {username!r}; check the spelling")
        await users.set_password(found[0].id, CONTEXT.hash(password))
        await users.end_logins(found[0].id)


async def add_admin(users: UserRepository, *, username: str, password: str) -> None:
    await users.add(
        uuid7(),
        username=normalize_name(username),
        email=None,
        password_hash=CONTEXT.hash(password),
        nickname="",
        role="super_admin",
    )

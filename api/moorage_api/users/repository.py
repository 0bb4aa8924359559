"""SQL of accounts and logins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database
from moorage_api.errors import ConflictError, NotFoundError
from moorage_api.users.account import Account, Role, Status

Identity = tuple[str, str]
"""A provider and the name by which it knows a person."""

COLUMNS = "users.id, username, email, nickname, avatar, role, status, users.created_at"

BY_LOGIN = f"""
    SELECT {COLUMNS} FROM users JOIN token_families ON token_families.user_id = users.id
    WHERE users.id = $1 AND token_families.id = $2
"""  # noqa: S608 - our own column names
BY_NAME = text(f"SELECT {COLUMNS}, password_hash FROM users WHERE lower(username) = lower(:name)")  # noqa: S608
BY_EMAIL = text(f"SELECT {COLUMNS}, password_hash FROM users WHERE lower(email) = lower(:name)")  # noqa: S608
INSERT = text(
    f"""
    INSERT INTO users (id, username, email, password_hash, nickname, avatar, role)
    VALUES (:id, :username, :email, :password_hash, :nickname, :avatar, :role) RETURNING {COLUMNS}
    """  # noqa: S608
)
BY_ID = text(f"SELECT {COLUMNS} FROM users WHERE id = :id FOR NO KEY UPDATE")  # noqa: S608
PAGE = text(f"SELECT {COLUMNS} FROM users ORDER BY created_at, id OFFSET :skip LIMIT :limit")  # noqa: S608
UPDATE = text(
    f"""
    UPDATE users SET nickname = coalesce(CAST(:nickname AS text), nickname),
        avatar = coalesce(CAST(:avatar AS text), avatar)
    WHERE id = :id RETURNING {COLUMNS}
    """  # noqa: S608
)

LOCK_PERSON = text("SELECT pg_advisory_xact_lock(hashtextextended(:person, 0))")
FIND_IDENTITY = text(
    """
    SELECT user_id FROM user_identities
    JOIN unnest(CAST(:providers AS text[]), CAST(:subjects AS text[])) WITH ORDINALITY
        AS known (provider, subject, place)
        ON known.provider = user_identities.provider AND known.subject = user_identities.subject
    ORDER BY place LIMIT 1
    """
)
ADD_IDENTITY = text(
    """
    INSERT INTO user_identities (provider, subject, user_id) VALUES (:provider, :subject, :user_id)
    ON CONFLICT (provider, subject) DO NOTHING
    """
)


async def find_by_login(db: Database, user_id: UUID, family_id: UUID) -> Account | None:
    """Find the account of a token; None if its login has ended. Runs in every request."""
    row = await db.fetchrow(BY_LOGIN, user_id, family_id)
    return Account(*row.values()) if row else None


def to_account(row: Any) -> Account:
    return Account(row.id, row.username, row.email, row.nickname, row.avatar, row.role, row.status, row.created_at)


class UserRepository:
    def __init__(self, tx: AsyncSession) -> None:
        self._tx = tx

    async def add(
        self,
        user_id: UUID,
        *,
        username: str | None,
        email: str | None,
        password_hash: str | None,
        nickname: str,
        avatar: str = "",
        role: Role = "user",
    ) -> Account:
        """Raises ConflictError if the name or e-mail address is taken, ignoring case."""
        try:
            row = (
                await self._tx.execute(
                    INSERT,
                    {
                        "id": user_id,
                        "username": username,
                        "email": email,
                        "password_hash": password_hash,
                        "nickname": nickname,
                        "avatar": avatar,
                        "role": role,
                    },
                )
            ).one()
        except IntegrityError as error:
            taken = "e-mail address" if "email" in str(error.orig) else "username"
            raise ConflictError(f"This {taken} is already taken; choose another one") from error
        return to_account(row)

    async def find_by_name_or_email(self, username: str | None, email: str | None) -> tuple[Account, str | None] | None:
        """Find an account and its password hash. If both are given, both must belong to the same account."""
        found = None
        if username is not None:
            found = (await self._tx.execute(BY_NAME, {"name": username})).first()
        if email is not None:
            by_email = (await self._tx.execute(BY_EMAIL, {"name": email})).first()
            if username is not None and (found is None or by_email is None or found.id != by_email.id):
                return None
            found = by_email
        return (to_account(found), found.password_hash) if found else None

    async def get(self, user_id: UUID) -> Account:
        """Raises NotFoundError."""
        row = (await self._tx.execute(BY_ID, {"id": user_id})).first()
        if row is None:
            raise NotFoundError("This user does not exist")
        return to_account(row)

    async def list_page(self, *, skip: int, limit: int) -> tuple[list[Account], int]:
        """Return a page of accounts, oldest first, and the number of all accounts."""
        rows = await self._tx.execute(PAGE, {"skip": skip, "limit": limit})
        total = await self._tx.scalar(text("SELECT count(*) FROM users"))
        return [to_account(row) for row in rows], int(total or 0)

    async def set_status(self, user_id: UUID, status: Status) -> None:
        await self._tx.execute(
            text("UPDATE users SET status = :status WHERE id = :id"), {"id": user_id, "status": status}
        )

    async def delete(self, user_id: UUID) -> None:
        await self._tx.execute(text("DELETE FROM users WHERE id = :id"), {"id": user_id})

    async def update(self, user_id: UUID, *, nickname: str | None, avatar: str | None) -> Account:
        row = (await self._tx.execute(UPDATE, {"id": user_id, "nickname": nickname, "avatar": avatar})).one()
        return to_account(row)

    async def set_password(self, user_id: UUID, password_hash: str) -> None:
        await self._tx.execute(
            text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"id": user_id, "hash": password_hash}
        )

    async def end_logins(self, user_id: UUID) -> None:
        """Make all tokens of the user invalid."""
        await self._tx.execute(text("DELETE FROM token_families WHERE user_id = :id"), {"id": user_id})

    async def add_family(self, family_id: UUID, user_id: UUID, *, jti: UUID, expires_at: datetime) -> None:
        """Begin a login, and remove expired logins of the same user."""
        await self._tx.execute(
            text("DELETE FROM token_families WHERE user_id = :user_id AND expires_at < now()"), {"user_id": user_id}
        )
        await self._tx.execute(
            text("INSERT INTO token_families (id, user_id, newest_jti, expires_at) VALUES (:id, :user_id, :jti, :at)"),
            {"id": family_id, "user_id": user_id, "jti": jti, "at": expires_at},
        )

    async def rotate(self, family_id: UUID, *, jti: UUID, expected_jti: UUID | None, expires_at: datetime) -> bool:
        """Make `jti` the newest token id. False if `expected_jti` is given and is no longer the newest."""
        result = await self._tx.execute(
            text(
                """
                UPDATE token_families SET newest_jti = :jti, expires_at = :at
                WHERE id = :id AND (CAST(:expected AS uuid) IS NULL OR newest_jti = :expected) RETURNING 1
                """
            ),
            {"id": family_id, "jti": jti, "expected": expected_jti, "at": expires_at},
        )
        return result.first() is not None

    async def end_family(self, family_id: UUID) -> None:
        await self._tx.execute(text("DELETE FROM token_families WHERE id = :id"), {"id": family_id})

    async def find_identity(self, identities: Sequence[Identity], *, lock: str) -> UUID | None:
        """Find the account of the first known identity, and lock the person until the transaction ends."""
        await self._tx.execute(LOCK_PERSON, {"person": lock})
        parameters = {
            "providers": [provider for provider, _ in identities],
            "subjects": [subject for _, subject in identities],
        }
        found: UUID | None = await self._tx.scalar(FIND_IDENTITY, parameters)
        return found

    async def add_identities(self, identities: Sequence[Identity], user_id: UUID) -> None:
        """Also those that were unknown before: the same person may come with another of them next time."""
        for provider, subject in identities:
            await self._tx.execute(ADD_IDENTITY, {"provider": provider, "subject": subject, "user_id": user_id})

    async def has_admin(self) -> bool:
        """Two processes that start at once must not both create the first admin: the second one waits here."""
        await self._tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('moorage first admin'))"))
        return bool(await self._tx.scalar(text("SELECT true FROM users WHERE role = 'super_admin' LIMIT 1")))

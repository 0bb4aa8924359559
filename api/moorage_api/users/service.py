"""Rules of accounts: register, log in, refresh tokens, authenticate requests."""

from __future__ import annotations

from uuid import UUID

from moorage_api.clock import Clock
from moorage_api.database import Database, uuid7
from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.users.account import Account
from moorage_api.users.passwords import Passwords
from moorage_api.users.repository import UserRepository, find_by_login
from moorage_api.users.schemas import LoginRequest, RegisterRequest, UpdateUserRequest
from moorage_api.users.tokens import Claims, IssuedPair, Tokens

WRONG_LOGIN = "Wrong username, e-mail address or password"


class UserService:
    def __init__(
        self, db: Database, passwords: Passwords, tokens: Tokens, now: Clock, *, refresh_single_use: bool
    ) -> None:
        self._db = db
        self._passwords = passwords
        self._tokens = tokens
        self._now = now
        self._refresh_single_use = refresh_single_use

    async def register(self, request: RegisterRequest) -> tuple[Account, IssuedPair]:
        """Create an account with the role `user` and log in. Raises ConflictError if the name is taken."""
        password_hash = await self._passwords.hash(request.password.get_secret_value())
        user_id = uuid7()
        pair, family_id = self._issue(user_id)
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            account = await users.add(
                user_id,
                username=request.username,
                email=request.email,
                password_hash=password_hash,
                nickname=request.nickname or "",
            )
            await users.add_family(family_id, user_id, jti=pair.refresh_jti, expires_at=pair.refresh_expires_at)
        return account, pair

    async def login(self, request: LoginRequest) -> tuple[Account, IssuedPair]:
        """Raises the same UnauthenticatedError for a wrong name and a wrong password, ForbiddenError if banned."""
        async with self._db() as tx:
            found = await UserRepository(tx).find_by_name_or_email(request.username, request.email)
        account, password_hash = found or (None, None)
        password = request.password.get_secret_value()
        right, replacement = await self._passwords.verify(password, password_hash)
        if account is None or not right:
            raise UnauthenticatedError(WRONG_LOGIN)
        check_active(account)
        pair, family_id = self._issue(account.id)
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            if replacement is not None:
                await users.set_password(account.id, replacement)
            await users.add_family(family_id, account.id, jti=pair.refresh_jti, expires_at=pair.refresh_expires_at)
        return account, pair

    async def refresh(self, refresh_token: str) -> IssuedPair:
        """Issue a new pair of tokens for the same login.

        The older refresh token stays valid until it expires, because two tabs may refresh at the same time. With single
        use it is refused, and the login ends, because the token was used twice or stolen.
        """
        claims = self._tokens.read(refresh_token, kind="refresh")
        pair = self._tokens.issue(claims.user_id, claims.family_id, now=self._now())
        await self._account_of(claims)
        async with self._db.begin() as tx:
            users = UserRepository(tx)
            rotated = await users.rotate(
                claims.family_id,
                jti=pair.refresh_jti,
                expected_jti=claims.jti if self._refresh_single_use else None,
                expires_at=pair.refresh_expires_at,
            )
            if not rotated:
                await users.end_family(claims.family_id)
        if not rotated:
            raise UnauthenticatedError("This refresh token has already been used; log in again")
        return pair

    def user_of_refresh_token(self, refresh_token: str) -> UUID:
        """Raises UnauthenticatedError for a token that is not valid. The login may have ended since."""
        return self._tokens.read(refresh_token, kind="refresh").user_id

    async def authenticate(self, access_token: str) -> Account:
        """Raises UnauthenticatedError if the token is invalid or its login has ended, ForbiddenError if banned."""
        claims = self._tokens.read_access(access_token)
        return await self._account_of(claims)

    async def update(self, user_id: UUID, request: UpdateUserRequest) -> Account:
        async with self._db.begin() as tx:
            return await UserRepository(tx).update(user_id, nickname=request.nickname, avatar=request.avatar)

    async def _account_of(self, claims: Claims) -> Account:
        account = await find_by_login(self._db, claims.user_id, claims.family_id)
        if account is None:
            raise UnauthenticatedError("This login has ended; log in again")
        check_active(account)
        return account

    def _issue(self, user_id: UUID) -> tuple[IssuedPair, UUID]:
        family_id = uuid7()
        return self._tokens.issue(user_id, family_id, now=self._now()), family_id


def check_active(account: Account) -> None:
    if account.status != "active":
        raise ForbiddenError(f"This account is {account.status}; ask an administrator to reactivate it")

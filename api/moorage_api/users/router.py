"""HTTP endpoints of the auth module."""

from __future__ import annotations

from fastapi import APIRouter

from moorage_api.http.envelope import Envelope, ok
from moorage_api.users import schemas
from moorage_api.users.callers import CurrentUser, Limits, Users
from moorage_api.users.tokens import IssuedPair

router = APIRouter(prefix="/auth", tags=["auth"])


def tokens_of(pair: IssuedPair) -> schemas.TokenResponse:
    return schemas.TokenResponse(access_token=pair.access_token, refresh_token=pair.refresh_token)


@router.post("/register")
async def register(body: schemas.RegisterRequest, users: Users) -> Envelope[schemas.LoginResponse]:
    """Create an account and log in. Names and e-mail addresses are unique without regard to case."""
    account, pair = await users.register(body)
    return ok(schemas.LoginResponse(user=schemas.UserResponse.of(account), tokens=tokens_of(pair)))


@router.post("/login")
async def login(body: schemas.LoginRequest, users: Users, limits: Limits) -> Envelope[schemas.LoginResponse]:
    """Log in by username or e-mail address. A wrong name and a wrong password give the same response."""
    await limits.spend_for_accounts(body.username, body.email)
    account, pair = await users.login(body)
    return ok(schemas.LoginResponse(user=schemas.UserResponse.of(account), tokens=tokens_of(pair)))


@router.post("/refresh")
async def refresh(body: schemas.RefreshTokenRequest, users: Users, limits: Limits) -> Envelope[schemas.TokenResponse]:
    """Get a new access token and a new refresh token."""
    token = body.refresh_token.get_secret_value()
    await limits.spend_for_accounts(str(users.user_of_refresh_token(token)))
    return ok(tokens_of(await users.refresh(token)))


@router.get("/me")
async def get_me(user: CurrentUser) -> Envelope[schemas.UserResponse]:
    """Get the caller's own account."""
    return ok(schemas.UserResponse.of(user))


@router.put("/me")
async def update_me(body: schemas.UpdateUserRequest, user: CurrentUser, users: Users) -> Envelope[schemas.UserResponse]:
    """Change nickname and avatar. Omitted fields keep their value, and unknown fields are ignored."""
    return ok(schemas.UserResponse.of(await users.update(user.id, body)))

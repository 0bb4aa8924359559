"""HTTP endpoints of the admin module."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query

from moorage_api.administration.service import UserRemoval
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.users import schemas
from moorage_api.users.callers import AdminUser
from moorage_api.users.management import AccountManagement

router = APIRouter(prefix="/admin", tags=["admin"])

UserId = Annotated[UUID, Path(description="Id from GET /api/admin/users")]


Accounts = Annotated[AccountManagement, Depends(provide(AccountManagement))]
Removal = Annotated[UserRemoval, Depends(provide(UserRemoval))]


@router.get("/users")
async def list_users(
    admin: AdminUser,
    accounts: Accounts,
    skip: Annotated[int, Query(ge=0, le=2**31, description="Number of accounts to skip")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most accounts to return")] = 100,
) -> Envelope[schemas.UserListResponse]:
    """List all accounts, oldest first."""
    users, total = await accounts.list_page(skip=skip, limit=limit)
    return ok(schemas.UserListResponse(users=[schemas.UserResponse.of(user) for user in users], total=total))


@router.get("/users/{user_id}")
async def get_user(user_id: UserId, admin: AdminUser, accounts: Accounts) -> Envelope[schemas.UserResponse]:
    """Get one account."""
    return ok(schemas.UserResponse.of(await accounts.get(user_id)))


@router.put("/users/{user_id}/status")
async def update_user_status(
    user_id: UserId, body: schemas.UserStatusUpdateRequest, admin: AdminUser, accounts: Accounts
) -> Envelope[None]:
    """Lock a user out (`banned`, `inactive`), which also ends their streams and VNC connections, or reactivate them.

    Not allowed for your own account and for other admins.
    """
    await accounts.set_status(user_id, body.status, by=admin)
    return ok()


@router.delete("/users/{user_id}")
async def delete_user(user_id: UserId, admin: AdminUser, removal: Removal) -> Envelope[None]:
    """Delete a user with their sessions, sandboxes, files and logins.

    Not allowed for your own account and for other admins. 503 if a server that is needed for it does not answer: the
    user is banned by then; delete again later to remove the rest.
    """
    await removal.delete(user_id, by=admin)
    return ok()

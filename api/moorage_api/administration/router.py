"""HTTP of the admin module."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query

from moorage_api.administration.service import UserManagement
from moorage_api.dependencies import AdminUser, ResourcesDep
from moorage_api.files.router import Files
from moorage_api.http.envelope import Envelope, ok
from moorage_api.sessions.router import Sessions
from moorage_api.users import schemas

router = APIRouter(prefix="/admin", tags=["admin"])

UserId = Annotated[UUID, Path(description="As GET /api/admin/users lists it")]


async def user_management(resources: ResourcesDep, sessions: Sessions, files: Files) -> UserManagement:
    return UserManagement(resources.db, resources.hub, sessions, files)


Management = Annotated[UserManagement, Depends(user_management)]


@router.get("/users")
async def list_users(
    admin: AdminUser,
    management: Management,
    skip: Annotated[int, Query(ge=0, le=2**31, description="How many to pass over")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most")] = 100,
) -> Envelope[schemas.UserListResponse]:
    """All accounts, oldest first."""
    users, total = await management.page(skip=skip, limit=limit)
    return ok(schemas.UserListResponse(users=[schemas.UserResponse.of(user) for user in users], total=total))


@router.get("/users/{user_id}")
async def get_user(user_id: UserId, admin: AdminUser, management: Management) -> Envelope[schemas.UserResponse]:
    """One account."""
    return ok(schemas.UserResponse.of(await management.get(user_id)))


@router.put("/users/{user_id}/status")
async def update_user_status(
    user_id: UserId, body: schemas.UserStatusUpdateRequest, admin: AdminUser, management: Management
) -> Envelope[None]:
    """Bar a user (`banned`, `inactive`), which ends their streams and screens, or let them in again.

    Not oneself, and no other admin.
    """
    await management.set_status(user_id, body.status, by=admin)
    return ok()


@router.delete("/users/{user_id}")
async def delete_user(user_id: UserId, admin: AdminUser, management: Management) -> Envelope[None]:
    """Remove a user with their sessions, sandboxes, files and logins. Not oneself, and no other admin.

    503 when a part that is needed for it is away: the user is barred by then, and deleting again goes on.
    """
    await management.delete(user_id, by=admin)
    return ok()

"""What routes ask for: the resources, and who is calling. All coroutines: a plain function would cost a thread."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.resources import Resources
from moorage_api.users.account import Account
from moorage_api.users.service import UserService

bearer = HTTPBearer(auto_error=False, description="Access token of /api/auth/login")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def get_resources(connection: HTTPConnection) -> Resources:
    resources = connection.app.state.resources
    assert isinstance(resources, Resources)
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def user_service(resources: ResourcesDep) -> UserService:
    return UserService(
        resources.db,
        resources.passwords,
        resources.tokens,
        resources.now,
        refresh_single_use=resources.settings.refresh_single_use,
    )


Users = Annotated[UserService, Depends(user_service)]


async def current_user(credentials: Credentials, users: Users) -> Account:
    if credentials is None:
        raise UnauthenticatedError("A bearer token is needed")
    return await users.authenticate(credentials.credentials)


CurrentUser = Annotated[Account, Depends(current_user)]


async def admin_user(user: CurrentUser) -> Account:
    if not user.is_admin:
        raise ForbiddenError("Only a super_admin may do this")
    return user


AdminUser = Annotated[Account, Depends(admin_user)]


async def config_writer(resources: ResourcesDep, credentials: Credentials, users: Users) -> None:
    """A super_admin, or anyone where MOORAGE_OPEN_CONFIG restores the letter of the contract."""
    if not resources.settings.open_config:
        await admin_user(await current_user(credentials, users))


ConfigWriter = Depends(config_writer)

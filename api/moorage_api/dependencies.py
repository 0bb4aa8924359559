"""What routes ask for: the resources, and who is calling. All coroutines: a plain function would cost a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from moorage_api.errors import ForbiddenError, UnauthenticatedError
from moorage_api.http.routes import Rule, Subject
from moorage_api.limits.addresses import client_address
from moorage_api.limits.leases import Connection
from moorage_api.limits.windows import Bucket, account_subject, address_subject, user_subject
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


async def limited(connection: HTTPConnection, resources: ResourcesDep) -> None:
    """Spend from the window of whoever asks, as the table of routes says. Every route has this dependency."""
    scope = connection.scope
    if scope["type"] != "http":
        return  # a WebSocket is told its close code by its own route
    rule: Rule = connection.app.state.rules[scope["endpoint"], scope["method"]]
    if rule.bucket is not None and not rule.asks_itself:
        await resources.windows.spend(rule.bucket, subject_of(connection, resources, rule.subject))


def subject_of(connection: HTTPConnection, resources: Resources, subject: Subject) -> str:
    """The user where the token is a good one, else the address. Whether the user may do anything is asked later."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if subject is Subject.CALLER and scheme.lower() == "bearer":
        try:
            return user_subject(resources.tokens.read_access(token).user_id)
        except UnauthenticatedError:
            pass  # the route says so, to whom it matters
    return address_subject(client_address(connection, resources.trusted_proxies))


async def spend_for_accounts(resources: Resources, *names: str | None) -> None:
    """Beside its address, a login counts for the account it is meant for, whether or not that exists."""
    subjects = [account_subject(name) for name in names if name]
    if subjects:
        await resources.windows.spend(Bucket.WRITES, *subjects)


Users = Annotated[UserService, Depends(user_service)]


async def current_user(credentials: Credentials, users: Users) -> Account:
    if credentials is None:
        raise UnauthenticatedError("A bearer token is needed")
    return await users.authenticate(credentials.credentials)


CurrentUser = Annotated[Account, Depends(current_user)]


async def stream_lease(user: CurrentUser, resources: ResourcesDep) -> AsyncIterator[None]:
    """Hold one of the user's streams until the response has ended, however it ends."""
    async with resources.leases.hold(Connection.STREAM, user.id):
        yield


StreamLease = Depends(stream_lease)


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

"""Count requests in the window of their user or of their client address."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection

from moorage_api.errors import UnauthenticatedError
from moorage_api.limits.addresses import Network, client_address
from moorage_api.limits.request_windows import Bucket, Windows, account_subject, address_subject, user_subject
from moorage_api.users.tokens import Tokens


class RequestLimits:
    def __init__(self, windows: Windows, tokens: Tokens, *, trusted_proxies: Sequence[Network]) -> None:
        self._windows = windows
        self._tokens = tokens
        self._trusted_proxies = tuple(trusted_proxies)

    async def spend(self, bucket: Bucket, connection: HTTPConnection, *, access_token: str = "") -> None:
        """Count a request in the window of the token's user, or without a valid token in that of the client's address.

        Raises LimitedError. What the user may do is checked elsewhere.
        """
        await self._windows.spend(bucket, self._subject_of(connection, access_token))

    async def spend_for_accounts(self, *names: str | None) -> None:
        """Count a login for the account that it names, whether or not the account exists. Raises LimitedError."""
        subjects = [account_subject(name) for name in names if name]
        if subjects:
            await self._windows.spend(Bucket.WRITES, *subjects)

    def _subject_of(self, connection: HTTPConnection, access_token: str) -> str:
        if access_token:
            try:
                return user_subject(self._tokens.read_access(access_token).user_id)
            except UnauthenticatedError:
                pass  # the route itself refuses the token, if it needs one
        return address_subject(client_address(connection, self._trusted_proxies))

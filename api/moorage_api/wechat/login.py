"""One installation's WeChat login, from the code that WeChat sends to tokens of ours."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from uuid import UUID

from moorage_api.users.identities import ExternalUser, IdentityService
from moorage_api.wechat.client import WechatClient, WechatError, WechatUser
from moorage_api.wechat.login_states import LoginStates, PendingLogin

MAX_CODE_LENGTH = 512


@dataclass(frozen=True)
class WechatLogin:
    """Not every installation has one: without `is_configured` its routes refuse."""

    is_configured: bool
    callback_url: str
    frontend_url: str
    states: LoginStates
    accounts: IdentityService
    client: WechatClient

    async def finish(self, pending: PendingLogin, code: str, *, cookie: str) -> dict[str, str]:
        """Log in or link, and return the query for the front end. Raises WechatError, DomainError."""
        if not code:
            raise WechatError("access_denied", "The user declined the login at WeChat")
        if len(code) > MAX_CODE_LENGTH:
            raise WechatError("invalid_code", "This is not a code from WeChat; start the login again")
        if pending.link_user_id and not secrets.compare_digest(digest_of(cookie), pending.browser):
            raise WechatError("invalid_state", "This login was started in another browser; start it again in this one")
        user = to_external_user(await self.client.fetch_user(code))
        if pending.link_user_id:
            await self.accounts.link(user, user_id=UUID(pending.link_user_id))
            return {"linked": "true"}
        pair = await self.accounts.log_in(user)
        return {"access_token": pair.access_token, "refresh_token": pair.refresh_token, "token_type": "bearer"}


def to_external_user(user: WechatUser) -> ExternalUser:
    """The unionid comes first: it finds the same person in another app of the same WeChat developer account."""
    names = (("wechat:unionid", user.unionid), ("wechat:openid", user.openid))
    return ExternalUser(
        identities=[(provider, name) for provider, name in names if name],
        provider_name="WeChat",
        lock=f"wechat {user.unionid or user.openid}",
        nickname=user.nickname,
        avatar=user.avatar,
    )


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""The OAuth `state` that is sent to WeChat and returned: signed, valid for ten minutes and for one use.

WeChat accepts at most 128 letters and digits. Therefore a state holds only a random name, its expiry time and a
signature; the data is in Redis under that name, and reading it removes it. A forged state is refused without Redis.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError

from moorage_api.clock import Clock
from moorage_api.errors import UnavailableError

LIFETIME = timedelta(minutes=10)
NAME_LENGTH = 32
END_LENGTH = 8
SIGNATURE_LENGTH = 32


@dataclass(frozen=True)
class PendingLogin:
    """A login that has begun. `client_state` comes from the front end and is returned to it."""

    client_state: str = ""
    link_user_id: str = ""
    """Id of the account to link to the WeChat user; "" for a login."""
    browser: str = ""
    """Digest of the cookie in the browser that began to link."""


class LoginStates:
    def __init__(self, redis: Redis, secret: str, now: Clock) -> None:
        self._redis = redis
        self._key = hashlib.sha256(b"moorage wechat state" + secret.encode()).digest()
        self._now = now

    async def begin(self, pending: PendingLogin) -> str:
        """Store `pending` and return its state. Raises UnavailableError without Redis."""
        name = secrets.token_hex(NAME_LENGTH // 2)
        end = format(int((self._now() + LIFETIME).timestamp()), f"0{END_LENGTH}x")
        try:
            await self._redis.set(self._redis_key(name), json.dumps(asdict(pending)), ex=LIFETIME)
        except (RedisError, OSError) as error:
            raise UnavailableError("Redis is not available; try again shortly") from error
        return name + end + self._sign(name + end)

    async def take(self, state: str) -> PendingLogin | None:
        """Return and remove the login of this state. None if the state is forged, expired or was already used."""
        signed, signature = state[:-SIGNATURE_LENGTH], state[-SIGNATURE_LENGTH:]
        if len(signed) != NAME_LENGTH + END_LENGTH or not hmac.compare_digest(
            signature.encode(), self._sign(signed).encode()
        ):
            return None
        if int(signed[NAME_LENGTH:], 16) < self._now().timestamp():
            return None
        try:
            stored = await self._redis.getdel(self._redis_key(signed[:NAME_LENGTH]))
        except (RedisError, OSError) as error:
            raise UnavailableError("Redis is not available; try again shortly") from error
        return PendingLogin(**json.loads(stored)) if stored else None

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:SIGNATURE_LENGTH]

    def _redis_key(self, name: str) -> str:
        return f"moorage:wechat:{name}"

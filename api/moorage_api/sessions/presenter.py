"""What clients get to see of a stored event: object keys become links that load without headers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import replace

from moorage_api.errors import ForbiddenError
from moorage_api.events.log import StoredEvent

LINK_SECONDS = 3600


class Presenter:
    """Signs links to pictures. Links are made when an event is delivered, so a replay has fresh ones."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"moorage picture links\0" + secret.encode()).digest()

    def present(self, event: StoredEvent) -> StoredEvent:
        content = event.data.get("content")
        if event.type != "tool" or not isinstance(content, dict) or "screenshot_key" not in content:
            return event
        shown = {key: value for key, value in content.items() if key != "screenshot_key"}
        shown["screenshot"] = self.link(str(content["screenshot_key"]))
        return replace(event, data={**event.data, "content": shown})

    def link(self, key: str, *, now: float | None = None) -> str:
        """A path of this API that serves the object until it expires."""
        expires = int((time.time() if now is None else now) + LINK_SECONDS)
        name = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        return f"/api/pictures/{name}?expires={expires}&signature={self._sign(name, expires)}"

    def open_link(self, name: str, *, expires: int, signature: str, now: float | None = None) -> str:
        """The object's key that a link stands for. Raises ForbiddenError for a forged or an expired one."""
        if not hmac.compare_digest(self._sign(name, expires).encode(), signature.encode()):
            raise ForbiddenError("This link is not valid")
        if expires < (time.time() if now is None else now):
            raise ForbiddenError("This link has expired; reload the session for a new one")
        return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{name}\n{expires}".encode(), hashlib.sha256).hexdigest()

"""Prepare stored events for clients: object keys become links that a browser can load without headers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from dataclasses import replace

from moorage_api.errors import ForbiddenError
from moorage_api.events.log import StoredEvent
from moorage_api.objects.store import BlobStore, StoredObject

LINK_SECONDS = 3600


class Presenter:
    """Replaces screenshot keys by signed links. Links are made at delivery, so a replay of old events has new links."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"moorage picture links\0" + secret.encode()).digest()

    def present(self, event: StoredEvent) -> StoredEvent:
        content = event.data.get("content")
        if event.type != "tool" or not isinstance(content, dict) or "screenshot_key" not in content:
            return event
        visible = {key: value for key, value in content.items() if key != "screenshot_key"}
        visible["screenshot"] = self.link(str(content["screenshot_key"]))
        return replace(event, data={**event.data, "content": visible})

    def link(self, key: str, *, now: float | None = None) -> str:
        """Build a path of this API that serves the object for LINK_SECONDS."""
        expires = int((time.time() if now is None else now) + LINK_SECONDS)
        name = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        return f"/api/pictures/{name}?expires={expires}&signature={self._sign(name, expires)}"

    def open_link(self, name: str, *, expires: int, signature: str, now: float | None = None) -> str:
        """Return the object's key from a link. Raises ForbiddenError if the signature is wrong or the link expired."""
        if not hmac.compare_digest(self._sign(name, expires).encode(), signature.encode()):
            raise ForbiddenError("This link is not valid; reload the session to get a new one")
        if expires < (time.time() if now is None else now):
            raise ForbiddenError("This link has expired; reload the session to get a new one")
        return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{name}\n{expires}".encode(), hashlib.sha256).hexdigest()


class Pictures:
    """Opens the pictures that links point to. The link's signature is the permission."""

    def __init__(self, presenter: Presenter, blobs: BlobStore) -> None:
        self._presenter = presenter
        self._blobs = blobs

    async def open(self, name: str, *, expires: int, signature: str) -> StoredObject:
        """Raises ForbiddenError for a forged or expired link, NotFoundError."""
        return await self._blobs.get(self._presenter.open_link(name, expires=expires, signature=signature))

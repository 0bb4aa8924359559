"""A model that sees, with the real sandbox: the user's pictures, a large photo, a page and a file."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from PIL import Image
from sqlalchemy import text

from moorage_api.database import create_engine
from moorage_api.objects import keys
from moorage_api.wiring.resources import blobs_of
from moorage_sandbox.pictures import read_header
from support.accounts import Person, data
from support.llm import Call, Finish, Plan, Request, Say, ScriptedModel, Turn
from support.processes import Platform
from support.sse import Chat

WORKSPACE = "/home/ubuntu/workspace"
PAGE = f"{WORKSPACE}/red.html"


def encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


SMALL = encode(Image.new("RGB", (40, 30), "blue"), "PNG")
PHOTO = encode(Image.effect_noise((3000, 2000), 90).convert("RGB"), "JPEG")


def script() -> list[Turn]:
    return [
        Plan("Pictures", "I will look at them.", ["Look"]),
        Call("write_file", {"filepath": PAGE, "content": "<body style='margin:0;background:#ff0000'>"}),
        Call("browser_navigate", {"url": f"file://{PAGE}"}),
        Call("browser_screenshot"),
        Call("read_file", {"filepath": f"{WORKSPACE}/upload/small.png"}),
        Finish("Seen."),
        Say("The page is red."),
    ]


def pictures(request: Request) -> list[tuple[str, bytes]]:
    contents = [message["content"] for message in request["messages"] if isinstance(message["content"], list)]
    urls = [part["image_url"]["url"] for content in contents for part in content if part["type"] == "image_url"]
    found = []
    for url in urls:
        head, _, body = url.partition(";base64,")
        found.append((head.removeprefix("data:"), base64.b64decode(body)))
    return found


def colour(picture: bytes) -> Any:
    return Image.open(io.BytesIO(picture)).convert("RGB").getpixel((20, 20))


async def longest_message(platform: Platform) -> int:
    """Characters of the longest message in the transcript."""
    engine = create_engine(platform.database_url)
    try:
        async with engine.connect() as connection:
            return int(await connection.scalar(text("SELECT max(length(message::text)) FROM transcript")) or 0)
    finally:
        await engine.dispose()


async def test_a_model_that_sees_gets_every_picture_of_a_session_within_the_limits(
    platform: Platform, use_model: Callable[[str], None], new_user: Callable[[str], Awaitable[Person]]
) -> None:
    with ScriptedModel(script()) as model:
        use_model(model.url)
        platform.changes.update(llm_model="gpt-4o", llm_picture_bytes=100_000, llm_picture_pixels=200_000)
        api = await platform.start_api()
        await asyncio.gather(platform.start_runner(), platform.start_host())
        alice = await new_user(api.url)
        files = [("small.png", SMALL, "image/png"), ("large.jpg", PHOTO, "image/jpeg")]
        ids = [(await alice.upload(*file))["id"] for file in files]
        session = await alice.create_session()
        chat = Chat(session, alice.token, lambda: api.url)
        ending = await chat.say("What do you see?", attachments=ids)
        assert ending.event == "done", ending.data

        first, last = pictures(model.requests[0]), pictures(model.requests[-1])
        assert first[0] == ("image/png", SMALL)
        assert first[1][0] == "image/jpeg"
        for media_type, picture in last:
            header = read_header(picture)
            assert header is not None
            assert header.media_type == media_type
            assert header.pixels <= 200_000
            assert len(picture) <= 100_000
        assert last[:2] == first, "the same bytes in each request"
        assert len(last) == 4
        assert colour(last[2][1]) == (255, 0, 0)
        assert last[3] == ("image/png", SMALL)

        (called,) = chat.all("tool", function="browser_screenshot", status="called")
        assert set(called["content"]) == {"screenshot"}
        assert await longest_message(platform) < 20_000, "pictures are not in the database"

        store = blobs_of(platform.settings())
        prefix, now = keys.session_prefix(UUID(session)), datetime.now(UTC) + timedelta(days=1)
        assert [key for key in await store.keys(prefix, before=now) if "/pictures/" in key]
        data(await alice.client.post(f"/api/sessions/{session}/delete"))
        assert await store.keys(prefix, before=now) == []
        await store.close()

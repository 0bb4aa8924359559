"""The pictures of a session in the object store: a key in a transcript never leads to an object of somebody else."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import pytest
from PIL import Image

from moorage_api.database import uuid7
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore, StoredObject
from moorage_api.runner.pictures import PictureLimits, PictureStore
from moorage_api.settings import Settings
from moorage_api.wiring.resources import open_resources

MINE, OTHER = uuid7(), uuid7()
DIGEST = "a" * 64


class FullStore:
    """A store in which every key is that of an object, so that only the check of the key protects the others."""

    async def get(self, key: str) -> StoredObject:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield key.encode()

        return StoredObject(len(key), chunks())


@pytest.fixture
async def blobs(settings: Settings) -> AsyncIterator[BlobStore]:
    async with open_resources(settings, issuer="runner") as resources:
        yield resources.blobs


async def test_a_session_reads_its_own_pictures_and_not_those_of_another(blobs: BlobStore) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    mine, other = (PictureStore(blobs, session_id, limits=PictureLimits()) for session_id in (MINE, OTHER))
    picture = await other.put(file.getvalue())
    assert await mine.read(picture.key) is None
    picture = await mine.put(file.getvalue())
    assert await mine.read(picture.key) == base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("sessions/{other}/pictures/{digest}.png", id="another session"),
        pytest.param("sessions/{mine}/../{other}/pictures/{digest}.png", id="up to another session"),
        pytest.param("sessions/{mine}/pictures/../../{other}/pictures/{digest}.png", id="up from the pictures"),
        pytest.param("sessions/{mine}/pictures/..%2f..%2f{other}/pictures/{digest}.png", id="up, encoded"),
        pytest.param("sessions/{mine}/pictures/..\\..\\{other}\\{digest}.png", id="up, with backslashes"),
        pytest.param("sessions/{mine}/./pictures/{digest}.png", id="a dot"),
        pytest.param("sessions/{mine}//pictures/{digest}.png", id="an empty part"),
        pytest.param("/sessions/{mine}/pictures/{digest}.png", id="a leading slash"),
        pytest.param("sessions/{mine}{other}/pictures/{digest}.png", id="a longer id"),
        pytest.param("sessions/{mine}x/pictures/{digest}.png", id="an id with the same beginning"),
        pytest.param("sessions/{mine}/outputs/{digest}.png", id="another folder of the session"),
        pytest.param("sessions/{mine}/pictures{digest}.png", id="a folder with the same beginning"),
        pytest.param("sessions/{mine}/pictures/{digest}", id="no extension"),
        pytest.param("sessions/{mine}/pictures/{digest}.png/more", id="more behind it"),
        pytest.param("sessions/{mine}/pictures/{digest}.png\n", id="a line break"),
        pytest.param("sessions/{mine}/pictures/{digest}.png?versionId=1", id="a query"),
        pytest.param("sessions/{mine}/pictures/{digest_in_capitals}.png", id="another spelling of the digest"),
        pytest.param("SESSIONS/{mine}/pictures/{digest}.png", id="another spelling of the prefix"),
        pytest.param("files/{mine}/{other}/1", id="a user's file"),
        pytest.param("skills/archives/{digest}.tar.gz", id="a skill"),
        pytest.param("manual/{mine}", id="a manual upload"),
        pytest.param("", id="nothing"),
    ],
)
async def test_no_other_object_is_read(template: str) -> None:
    store = PictureStore(cast(BlobStore, FullStore()), MINE, limits=PictureLimits())
    key = template.format(mine=MINE, other=OTHER, digest=DIGEST, digest_in_capitals=DIGEST.upper())
    assert await store.read(keys.session_picture_key(MINE, DIGEST, "png")) is not None
    assert await store.read(key) is None

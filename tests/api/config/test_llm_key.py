"""The model's API key is always stored encrypted, and a key that cannot be decrypted can be replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from moorage_api.config.models import ConfigRow
from moorage_api.config.schemas import LlmConfigUpdate
from moorage_api.config.service import KEY_UNREADABLE
from moorage_api.database import Database, create_database, create_engine
from moorage_api.outbound import Outbound
from moorage_api.settings import Settings
from moorage_api.wiring.resources import sealing_of
from moorage_api.wiring.services import build_config
from moorage_local.prepare import PreparedServices, prepare_services
from support.accounts import admin, data, register
from support.llm import Plan, ScriptedModel
from support.processes import Platform
from support.sse import Chat

KEY = "sk-a-key-of-a-model"
FIRST, SECOND = "first key " * 4, "second key " * 4
MODEL = {"base_url": "http://127.0.0.1:9/v1", "model_name": "m", "temperature": 0.5, "max_tokens": 100}


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    engine = create_engine(database_url)
    db = create_database(engine)
    yield db
    await db.close()
    await engine.dispose()


async def rows(db: Database) -> list[str]:
    async with db() as tx:
        return list(await tx.scalars(text("SELECT app_config::text FROM app_config")))


async def prepare_platform(settings: Settings, **changes: Any) -> PreparedServices:
    changed = settings.model_copy(update=changes)
    return await prepare_services(changed, admin_username="boss", admin_password=SecretStr("a password of the boss"))


async def test_the_key_is_stored_encrypted_and_an_unreadable_key_can_be_replaced(
    platform: Platform, db: Database
) -> None:
    with ScriptedModel([Plan("Hi", "Hello!", [])], api_key=KEY) as model:
        body = MODEL | {"base_url": model.url}
        platform.changes["config_key"] = FIRST
        api = await platform.start_api()
        async with await admin(api.url, platform.database_url) as root:
            data(await root.client.post("/api/app-config/llm", json=body | {"api_key": KEY}))
            for no_key in ("", None):
                data(await root.client.post("/api/app-config/llm", json=body | {"api_key": no_key}))
        assert (await prepare_platform(platform.settings())).llm_key == "available"
        assert KEY not in str(await rows(db))
        await api.stop()

        platform.changes["config_key"] = SECOND
        assert (await prepare_platform(platform.settings())).llm_key == "unreadable"
        api = await platform.start_api()
        await platform.start_runner()
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
            ending = await chat.say("Hello")
            assert (ending.event, ending.data["code"], ending.data["error"]) == ("error", "unavailable", KEY_UNREADABLE)
            assert data(await root.client.get("/api/app-config/llm")) == body
            assert (
                data(await root.client.post("/api/app-config/llm", json=body | {"max_tokens": 99}))["max_tokens"] == 99
            )
            data(await root.client.post("/api/app-config/llm", json=body | {"api_key": KEY}))
            assert (await chat.say("Hello again")).event == "done"
            texts = [message["content"] for message in model.requests[-1]["messages"]]
            assert "Hello\n\nHello again" in texts, "the message of the failed run must reach the model later"
        assert KEY not in str(await rows(db)) + platform.logs()


@pytest.mark.parametrize("sealed_by", ["a start", "a change"])
async def test_a_key_in_plain_text_still_works_and_gets_encrypted(
    settings: Settings, db: Database, sealed_by: str
) -> None:
    async with db.begin() as tx:
        tx.add(ConfigRow(name="llm", value=MODEL | {"api_key": KEY}))
    config = build_config(settings, db, sealing=sealing_of(settings), outbound=Outbound())
    assert (await config.llm()).api_key.get_secret_value() == KEY
    if sealed_by == "a start":
        await prepare_platform(settings)
    else:
        await config.update_llm(LlmConfigUpdate.model_validate(MODEL))
    assert KEY not in str(await rows(db))
    assert (await config.llm()).api_key.get_secret_value() == KEY


async def test_a_new_config_key_can_read_what_was_encrypted_with_the_derived_key(settings: Settings) -> None:
    sealed = sealing_of(settings.model_copy(update={"config_key": None})).seal({"api_key": KEY})
    with_own = settings.model_copy(update={"config_key": SecretStr(FIRST)})
    assert sealing_of(with_own).open(sealed) == {"api_key": KEY}

"""What runs learn about a model is stored for all runners."""

from __future__ import annotations

import asyncio

from pydantic import SecretStr

from moorage_api.config.sealing import Sealing
from moorage_api.config.service import ConfigService, LlmDefaults
from moorage_api.database import create_database, create_engine
from moorage_api.outbound import Outbound


async def test_facts_of_a_model_are_added_to_and_other_models_do_not_get_them(database_url: str) -> None:
    engine = create_engine(database_url)
    db = create_database(engine)
    try:
        defaults = LlmDefaults("http://127.0.0.1:9/v1", "m", SecretStr(""))
        config = ConfigService(db, defaults, Sealing(["a key for tests " * 3]), Outbound())
        assert await config.model_facts("a at x") == {}
        await config.add_model_facts("a at x", {"can_force": False})
        await asyncio.gather(
            config.add_model_facts("a at x", {"plain_schemas": True}),
            config.add_model_facts("b at x", {"refused_fields": ["reasoning"]}),
        )
        await config.add_model_facts("a at x", {"can_force": True})
        assert await config.model_facts("a at x") == {"can_force": True, "plain_schemas": True}
        assert await config.model_facts("b at x") == {"refused_fields": ["reasoning"]}
    finally:
        await db.close()
        await engine.dispose()

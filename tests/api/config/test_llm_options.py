"""Additions to the model's configuration: what they do in a run, what is refused, and which model they are for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from moorage_api.config.options import MAX_BODY_CHARS, OWN_FIELDS, OWN_HEADERS, LlmOptionsUpdate, LlmTestRequest
from moorage_api.config.schemas import LlmConfigUpdate
from moorage_api.config.sealing import Sealing
from moorage_api.config.service import ConfigService, LlmDefaults
from moorage_api.database import Database, create_database, create_engine
from moorage_api.errors import ConflictError, InvalidError, UnavailableError
from moorage_api.outbound import Outbound
from support.accounts import Person, admin, data, register
from support.llm import Plan, ScriptedModel, Status
from support.processes import Platform
from support.sse import Chat
from support.willing_model import WILLING, willing

KEY, GATE_KEY = "sk-a-key-of-a-model", "gate-key-0123456789"
FIRST = {"base_url": "http://127.0.0.1:9/v1", "model_name": "first", "temperature": 0.5, "max_tokens": 100}
OPTIONS_PATH = "/api/app-config/llm/options"
DEFAULTS = {
    "headers": {},
    "body": {},
    "send_temperature": True,
    "sees": None,
    "context_tokens": None,
    "first_byte_seconds": None,
    "idle_seconds": None,
    "patience_seconds": None,
    "learnt": {},
}


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    engine = create_engine(database_url)
    db = create_database(engine)
    yield db
    await db.close()
    await engine.dispose()


def service(db: Database, *, key: str = "a key for tests " * 3) -> ConfigService:
    defaults = LlmDefaults("https://llm.example/v1", "default", SecretStr("sk-of-the-settings"))
    return ConfigService(db, defaults, Sealing([key]), Outbound())


async def configure(config: ConfigService, **changes: Any) -> None:
    await config.update_llm(LlmConfigUpdate.model_validate(FIRST | changes))


async def set_options(config: ConfigService, **fields: Any) -> dict[str, Any]:
    return (await config.update_options(LlmOptionsUpdate.model_validate(fields))).model_dump()


async def test_additions_reach_the_model_and_their_secrets_stay_in_the_database(
    platform: Platform, db: Database
) -> None:
    """The five fields of the contract stay what they are, and a client that knows only them changes nothing else."""
    with ScriptedModel([Plan("Hi", "Hello!", [])] * 2) as model:
        config = FIRST | {"base_url": model.url}
        api = await platform.start_api()
        await platform.start_runner()
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            assert data(await root.client.post("/api/app-config/llm", json=config | {"api_key": KEY})) == config
            options: dict[str, Any] = {
                "headers": {"Authorization": f"Token {GATE_KEY}", "X-Team": "harbour"},
                "body": {"reasoning": {"effort": "low"}, "seed": 7},
                "send_temperature": False,
                "context_tokens": 20_000,
                "patience_seconds": 0,
            }
            hidden = dict.fromkeys(options["headers"])
            stored = DEFAULTS | options | {"headers": hidden, "base_url": model.url, "model_name": "first"}
            assert data(await root.client.post(OPTIONS_PATH, json=options)) == stored
            old_client = config | {"max_tokens": 99}
            assert data(await root.client.post("/api/app-config/llm", json=old_client)) == old_client
            assert data(await alice.client.get("/api/app-config/llm")) == old_client
            assert data(await root.client.get(OPTIONS_PATH)) == stored
            assert data(await root.client.post(OPTIONS_PATH, json=stored)) == stored, "what was read can be sent back"

            assert (await Chat(await alice.create_session(), alice.token, lambda: api.url).say("Hi")).event == "done"
            (sent,), (headers,) = model.requests, model.headers
            assert (sent["reasoning"], sent["seed"], sent["max_tokens"]) == ({"effort": "low"}, 7, 99)
            assert "temperature" not in sent
            assert (headers["authorization"], headers["x-team"]) == (f"Token {GATE_KEY}", "harbour")
        async with db() as tx:
            rows = str(list(await tx.scalars(text("SELECT app_config::text FROM app_config"))))
        assert [secret for secret in (KEY, GATE_KEY) if secret in rows + platform.logs()] == []


async def test_a_secret_header_that_a_server_repeats_is_masked(platform: Platform) -> None:
    with ScriptedModel(lambda _: Status(401, {"error": {"message": f"wrong token: {GATE_KEY}"}})) as model:
        api = await platform.start_api()
        await platform.start_runner()
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            data(await root.client.post("/api/app-config/llm", json=FIRST | {"base_url": model.url}))
            data(await root.client.post(OPTIONS_PATH, json={"headers": {"Authorization": f"Bearer {GATE_KEY}"}}))
            ending = await Chat(await alice.create_session(), alice.token, lambda: api.url).say("Hi")
            tested = data(await root.client.post("/api/app-config/llm/test"))
        assert "wrong token: …" in ending.data["error"]
        assert "wrong token: …" in tested["parts"][0]["message"]
        assert GATE_KEY not in platform.logs()


async def test_an_admin_sees_what_was_learnt_about_the_model_and_can_have_it_forgotten(db: Database) -> None:
    config = service(db)
    await configure(config)
    identity = (await config.llm()).identity
    await config.add_model_facts(identity, {"sends_temperature": False})
    await config.add_model_facts("another at x", {"sees": False})
    read = (await config.options()).model_dump()
    assert read["learnt"] == {"sends_temperature": False}
    assert (await set_options(config, **read))["learnt"] == {"sends_temperature": False}
    assert (await set_options(config, forget_learnt=True, idle_seconds=5))["learnt"] == {}
    assert await config.model_facts(identity) == {}
    assert await config.model_facts("another at x") == {"sees": False}
    assert (await config.llm()).options.idle_seconds == 5


async def test_headers_go_to_their_server_only_and_body_fields_to_their_model(db: Database) -> None:
    config = service(db)
    await configure(config)
    await set_options(config, headers={"X-Key": GATE_KEY}, idle_seconds=5, body={"seed": 1}, context_tokens=9000)

    await configure(config, model_name="second")
    options = (await config.llm()).options
    assert (options.headers, options.idle_seconds) == ({"X-Key": GATE_KEY}, 5)
    assert GATE_KEY not in repr(await config.llm())
    assert (options.body, options.context_tokens) == ({}, None)

    await configure(config, base_url="http://127.0.0.1:8/v1")
    assert (await config.llm()).options.headers == {}
    assert (await config.options()).model_dump() == DEFAULTS | {
        "base_url": "http://127.0.0.1:8/v1",
        "model_name": "first",
    }
    tried = await config.llm_for_test(LlmTestRequest.model_validate({"base_url": "http://127.0.0.1:7/v1"}))
    assert (tried.options.headers, tried.api_key.get_secret_value()) == ({}, "")

    await configure(config)
    options = (await config.llm()).options
    assert (options.headers, options.body) == ({"X-Key": GATE_KEY}, {"seed": 1}), "the first model is back"


async def test_only_what_is_named_changes_and_null_is_the_default(db: Database) -> None:
    config = service(db)
    await configure(config)
    await set_options(config, headers={"X-A": "a", "X-B": "b"}, body={"seed": 1}, patience_seconds=0, idle_seconds=5)
    await set_options(config, headers={"x-a": None, "X-C": "c"})
    assert (await config.llm()).options.headers == {"x-a": "a", "X-C": "c"}
    read = await set_options(config, idle_seconds=None, body=None, send_temperature=None)
    assert (read["idle_seconds"], read["patience_seconds"], read["body"], read["send_temperature"]) == (
        None,
        0,
        {},
        True,
    )
    assert (await set_options(config, headers=None))["headers"] == {}


async def test_a_header_without_a_value_needs_a_stored_one(db: Database) -> None:
    config = service(db)
    await configure(config)
    with pytest.raises(InvalidError, match="X-New"):
        await set_options(config, headers={"X-New": None})
    assert (await config.options()).headers == {}


async def test_options_for_a_model_that_is_no_longer_configured_are_refused(db: Database) -> None:
    config = service(db)
    await configure(config)
    for other in ({"model_name": "second"}, {"base_url": "http://127.0.0.1:8/v1"}):
        with pytest.raises(ConflictError, match="read the options again"):
            await set_options(config, **other, context_tokens=9000)
    assert (await config.options()).context_tokens is None


async def test_headers_that_cannot_be_decrypted_end_a_run_in_words_and_can_be_replaced(db: Database) -> None:
    await configure(service(db))
    await set_options(service(db), headers={"X-Key": GATE_KEY})
    other = service(db, key="another key " * 4)
    with pytest.raises(UnavailableError, match="llm/options"):
        await other.llm()
    assert (await other.options()).headers == {"X-Key": None}
    await set_options(other, headers={"X-Key": GATE_KEY})
    assert (await other.llm()).options.headers == {"X-Key": GATE_KEY}


async def test_the_key_of_the_settings_goes_to_the_server_of_the_settings_only(db: Database) -> None:
    config = service(db)
    assert (await config.llm()).api_key.get_secret_value() == "sk-of-the-settings"
    await configure(config, base_url="https://llm.example/other/v2")
    assert (await config.llm()).api_key.get_secret_value() == "sk-of-the-settings"
    for elsewhere in ("https://llm.example:8443/v1", "http://llm.example/v1", "https://other.example/v1"):
        await configure(config, base_url=elsewhere)
        assert (await config.llm()).api_key.get_secret_value() == "", elsewhere
        assert await config.llm_key() == "missing"


def build_nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


REFUSALS: dict[str, tuple[str, str]] = {
    **{f"header {name}": (json.dumps({"headers": {name.title(): "x"}}), "headers") for name in sorted(OWN_HEADERS)},
    "a header that is no token": ('{"headers": {"X Y": "x"}}', "headers"),
    "a header without a name": ('{"headers": {"": "x"}}', "headers"),
    "a header twice": ('{"headers": {"X-A": "1", "x-a": "2"}}', "headers"),
    "a line break in a value": ('{"headers": {"X-A": "1\\r\\nX-B: 2"}}', "headers"),
    "a line feed at the end": ('{"headers": {"X-A": "1\\n"}}', "headers"),
    "a NUL in a value": ('{"headers": {"X-A": "1\\u0000"}}', "headers"),
    "a value that is not ASCII": ('{"headers": {"X-A": "\\u00e9"}}', "headers"),
    "a value of another script": ('{"headers": {"X-A": "\\u4f60"}}', "headers"),
    "an empty value": ('{"headers": {"X-A": ""}}', "headers"),
    "a long value": (json.dumps({"headers": {"X-A": "x" * 4097}}), "headers"),
    "many headers": (json.dumps({"headers": {f"X-{number}": "x" for number in range(33)}}), "headers"),
    **{f"body {name}": (json.dumps({"body": {name: []}}), "body") for name in sorted(OWN_FIELDS)},
    "a large body": (json.dumps({"body": {"x": "x" * MAX_BODY_CHARS}}), "body"),
    "a deep body": (json.dumps({"body": {"x": build_nested(9)}}), "body"),
    "a very deep body": (json.dumps({"body": {"x": build_nested(400)}}), "body"),
    "a NUL in a body": ('{"body": {"x": ["\\u0000"]}}', "body"),
    "a lone surrogate in a name of a body": ('{"body": {"\\ud800": 1}}', "body"),
    "NaN in a body": ('{"body": {"x": NaN}}', "body"),
    "an infinite number in a body": ('{"body": {"x": 1e999}}', "body"),
    "a body that is a list": ('{"body": []}', "body"),
    "a small window": ('{"context_tokens": 3999}', "context_tokens"),
    "a huge window": ('{"context_tokens": 10000001}', "context_tokens"),
    "no time": ('{"idle_seconds": 0}', "idle_seconds"),
    "too much time": ('{"first_byte_seconds": 3601}', "first_byte_seconds"),
    "NaN seconds": ('{"patience_seconds": NaN}', "patience_seconds"),
    "a misspelt field": ('{"contex_tokens": 9000}', "contex_tokens"),
}


@pytest.mark.parametrize(("body", "field"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_cannot_work_is_refused_by_name_and_nothing_changes(root: Person, body: str, field: str) -> None:
    before = data(await root.client.get(OPTIONS_PATH))
    for path in (OPTIONS_PATH, "/api/app-config/llm/test"):
        answer = await root.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert {item["field"].split(".")[1] for item in answer.json()["data"]["fields"]} == {field}
    assert data(await root.client.get(OPTIONS_PATH)) == before


async def test_a_model_can_be_tried_without_storing_it(root: Person) -> None:
    before = [data(await root.client.get(path)) for path in ("/api/app-config/llm", OPTIONS_PATH)]
    with ScriptedModel(willing(), api_key=KEY) as model:
        request = {"base_url": model.url, "api_key": KEY, "model_name": "tried", "headers": {"X-Team": "harbour"}}
        request["body"] = {"seed": 1}
        result = data(await root.client.post("/api/app-config/llm/test", json=request))
    assert (result["base_url"], result["model_name"], result["usable"]) == (model.url, "tried", True)
    assert {part["part"]: part["outcome"] for part in result["parts"]} == dict.fromkeys(
        ["plan", "tool_call", "streaming", "picture", "window"], "works"
    )
    assert len(model.requests) == len(WILLING)
    assert {(sent["seed"], headers["x-team"]) for sent, headers in zip(model.requests, model.headers, strict=True)} == {
        (1, "harbour")
    }
    assert [data(await root.client.get(path)) for path in ("/api/app-config/llm", OPTIONS_PATH)] == before


async def test_a_trial_passes_the_outbound_policy(root: Person) -> None:
    for url in ("http://169.254.169.254/v1", "http://[fe80::1]/v1"):
        answer = await root.client.post("/api/app-config/llm/test", json={"base_url": url, "api_key": KEY})
        assert (answer.status_code, answer.json()["data"]["error"]) == (400, "outbound_refused")


@pytest.mark.parametrize("platform", [{"limit_model_tests": 2}], indirect=True)
async def test_trials_have_a_limit_of_their_own(platform: Platform) -> None:
    api = await platform.start_api()
    async with (
        await admin(api.url, platform.database_url) as root,
        await admin(api.url, platform.database_url) as other,
    ):
        nowhere = {"base_url": "http://127.0.0.1:9/v1"}
        statuses = [
            (await person.client.post("/api/app-config/llm/test", json=nowhere)).status_code
            for person in (root, root, root, other)
        ]
        assert statuses == [200, 200, 429, 200]
        assert (await root.client.get(OPTIONS_PATH)).status_code == 200


async def test_without_a_model_the_first_message_says_how_to_set_one(platform: Platform) -> None:
    api = await platform.start_api()
    await platform.start_runner()
    with ScriptedModel([Plan("Hi", "Hello!", [])]) as model:
        async with await admin(api.url, platform.database_url) as root, await register(api.url) as alice:
            chat = Chat(await alice.create_session(), alice.token, lambda: api.url)
            ending = await chat.say("Hello")
            assert (ending.event, ending.data["code"]) == ("error", "llm_not_configured")
            assert "POST /api/app-config/llm" in ending.data["error"]
            assert "MOORAGE_LLM_API_KEY" in ending.data["error"]
            assert "\n" not in ending.data["error"]
            assert chat.types() == ["message", "error"]
            data(await root.client.post("/api/app-config/llm", json=FIRST | {"base_url": model.url}))
            assert (await chat.say("Hello again")).event == "done"
            assert "Hello\n\nHello again" in [message["content"] for message in model.requests[-1]["messages"]]
    assert "Traceback" not in platform.logs()

"""`moorage llm test`: which model it tries, what it prints, and its exit status."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from moorage_api.config.options import LlmOptionsUpdate
from moorage_api.config.schemas import LlmConfigUpdate
from moorage_api.database import create_database, create_engine
from moorage_api.outbound import Outbound
from moorage_api.settings import Settings
from moorage_api.wiring.resources import sealing_of
from moorage_api.wiring.services import build_config
from moorage_local.processes.child import Child
from support.llm import Hang, Say, ScriptedModel, Status
from support.machine import environment, moorage
from support.waiting import HANG_SECONDS, until
from support.willing_model import WILLING, willing

KEY = "sk-of-the-environment"


def test_a_given_model_needs_no_database_and_its_key_is_not_printed(tmp_path: Path) -> None:
    with ScriptedModel(willing(), api_key=KEY) as model:
        reply = moorage(
            "llm", "test", "--base-url", model.url, "--model", "m", data=tmp_path / "none", MOORAGE_LLM_API_KEY=KEY
        )
    assert reply.returncode == 0, reply.stdout
    assert f"Testing m at {model.url}" in reply.stdout
    assert [line.split("works")[0].strip() for line in reply.stdout.splitlines() if " works " in line] == [
        "plan",
        "tool call",
        "streaming",
        "picture",
        "window",
    ]
    assert "The agent can use this model." in reply.stdout
    assert KEY not in reply.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("part", "status"), [("plan", 1), ("call", 1), ("answer", 1), ("streaming", 0), ("picture", 0), ("window", 0)]
)
def test_the_exit_status_is_1_if_a_plan_or_a_tool_call_does_not_work(tmp_path: Path, part: str, status: int) -> None:
    with ScriptedModel(willing(**{part: Say("")})) as model:
        reply = moorage("llm", "test", "--base-url", model.url, "--model", "m", "--json", data=tmp_path)
    result = json.loads(reply.stdout)
    assert (reply.returncode, result["usable"]) == (status, status == 0)
    failed = "tool_call" if part in ("call", "answer") else part
    assert [item["part"] for item in result["parts"] if item["outcome"] == "does_not_work"] == [failed]


async def test_the_configured_model_is_tried_with_its_key_and_its_headers(tmp_path: Path, settings: Settings) -> None:
    with ScriptedModel(willing(), api_key=KEY) as model:
        engine = create_engine(settings.database_url.get_secret_value())
        config = build_config(settings, create_database(engine), sealing=sealing_of(settings), outbound=Outbound())
        stored = {"base_url": model.url, "model_name": "stored", "api_key": KEY}
        await config.update_llm(LlmConfigUpdate.model_validate(stored))
        await config.update_options(LlmOptionsUpdate(headers={"X-Team": SecretStr("harbour")}))
        await engine.dispose()
        place = {
            "MOORAGE_DATABASE_URL": settings.database_url.get_secret_value(),
            "MOORAGE_JWT_SECRET": settings.jwt_secret.get_secret_value(),
        }
        reply = moorage("llm", "test", data=tmp_path, **place)
        assert reply.returncode == 0, reply.stdout
        assert {headers["x-team"] for headers in model.headers} == {"harbour"}
        assert {sent["model"] for sent in model.requests} == {"stored"}
        assert len(model.requests) == len(WILLING)
        assert KEY not in reply.stdout

        other = moorage("llm", "test", "--model", "other", data=tmp_path, **place)
        assert f"Testing other at {model.url}" in other.stdout
        assert other.returncode == 0

    with ScriptedModel(lambda _: Status(401)) as elsewhere:
        moorage("llm", "test", "--base-url", elsewhere.url, data=tmp_path, **place)
    assert [headers for headers in elsewhere.headers if "x-team" in headers or KEY in headers["authorization"]] == []
    assert elsewhere.headers


def test_before_the_first_start_the_model_of_the_environment_is_tried(tmp_path: Path) -> None:
    with ScriptedModel(willing(), api_key=KEY) as model:
        place = {"MOORAGE_LLM_BASE_URL": model.url, "MOORAGE_LLM_MODEL": "early", "MOORAGE_LLM_API_KEY": KEY}
        reply = moorage("llm", "test", data=tmp_path, **place)
    assert reply.returncode == 0, reply.stdout
    assert f"Testing early at {model.url}" in reply.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {}, "No model is configured"),
        (["--base-url", "ftp://x", "--model", "m"], {}, "base_url: must be an http or https URL"),
        (["--base-url", "http://127.0.0.1:9", "--model", "m", "--window", "1"], {}, "window_tokens"),
        ([], {"MOORAGE_DATABASE_URL": "postgresql://u:p@127.0.0.1:9/x"}, "MOORAGE_CONFIG_KEY"),
        (
            [],
            {"MOORAGE_DATABASE_URL": "postgresql://u:p@127.0.0.1:9/x", "MOORAGE_JWT_SECRET": "s" * 32},
            "The database does not answer",
        ),
    ],
    ids=["no model", "url", "window", "no secret", "no database"],
)
def test_what_cannot_be_tried_says_what_to_do(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    reply = moorage("llm", "test", *arguments, data=tmp_path / "none", **variables)
    assert reply.returncode == 1
    assert reply.stdout.startswith("moorage: ")
    assert said in reply.stdout


async def test_ctrl_c_ends_it_at_once_and_the_progress_was_shown(tmp_path: Path) -> None:
    with ScriptedModel(willing(call=Hang())) as model:
        # a shell that runs the suite in the background makes its processes ignore SIGINT
        command = ["env", "--default-signal=INT", sys.executable, "-m", "moorage_local.cli", "llm", "test"]
        command += ["--base-url", model.url, "--model", "m"]
        child = Child.start(command, log=tmp_path / "out", environment=environment(tmp_path, {}))
        await model.wait_for_requests(2)
        await until(lambda: "tool call" in child.log.read_text(), "the name of the second part")
        began = time.monotonic()
        child.process.send_signal(signal.SIGINT)
        assert await child.wait() == 130
    assert time.monotonic() - began < HANG_SECONDS
    assert "with 2 steps" in child.log.read_text()
    assert "Traceback" not in child.log.read_text()

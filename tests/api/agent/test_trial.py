"""A trial of a model says for each part whether it works, and why not, in words."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.trial import PARTS, PartResult, Trial, is_usable, orange_square
from moorage_api.outbound import Outbound
from support.llm import Call, Calls, Hang, Raw, Say, ScriptedModel, Status, Turn
from support.providers.families import FAMILIES, OLLAMA
from support.providers.server import Family, FamilyServer
from support.waiting import HANG_SECONDS
from support.willing_model import WILLING, willing

KEY = "sk-very-secret"


async def try_all(
    model: ScriptedModel, *, name: str = "m", seconds: float = HANG_SECONDS, **options: Any
) -> dict[str, PartResult]:
    async with LlmClient(model.url, KEY, name, outbound=Outbound(), **options) as llm:
        trial = Trial(llm, part_seconds=seconds)
        return {part: await trial.try_part(part) for part in PARTS}


async def test_a_model_that_can_do_everything_works_in_every_part() -> None:
    with ScriptedModel(willing()) as model:
        results = await try_all(model)
    assert {result.outcome for result in results.values()} == {"works"}, results
    assert is_usable(results.values())
    assert len(model.requests) == len(WILLING)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_the_needed_parts_work_with_each_family(family: Family) -> None:
    with FamilyServer(family, willing()) as server:
        results = await try_all(server, name=family.model)
    assert is_usable(results.values()), results


PLAIN = Say("I will write the file now.")
TEXT_CALL = Say('{"name": "look_up", "arguments": {"harbour": "Bergen"}}')
REFUSED = Status(400, {"error": {"message": f"No pictures here, {KEY}!"}})
PROBLEMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no plan": ({"plan": PLAIN}, "plan", "did not call `make_plan`. It answered: I will write"),
    "a plan without steps": ({"plan": Call("make_plan", {"steps": []})}, "plan", "without steps"),
    "another function": ({"plan": Call("ls", {})}, "plan", "It called `ls`"),
    "no call": ({"call": Say("4711")}, "tool_call", "did not call `look_up`. It answered: 4711"),
    "a call as text": ({"call": TEXT_CALL}, "tool_call", "--enable-auto-tool-choice"),
    "a call with broken arguments": (
        {"call": Calls(Call("look_up", arguments='{"harbour":'))},
        "tool_call",
        'unusable arguments: {"harbour":',
    ),
    "a result that is not used": ({"answer": Say("I do not know.")}, "tool_call", "did not use its result"),
    "one piece": ({"streaming": Say("one, two")}, "streaming", "in one piece"),
    "a blind model": ({"picture": Say("Blue")}, "picture", "does not see it. It answered: Blue"),
    "a server without pictures": ({"picture": REFUSED}, "picture", "No pictures here"),
    "a beginning that was not read": ({"window": Say("Which number?")}, "window", "OLLAMA_CONTEXT_LENGTH"),
    "a window that is too small": (
        {"window": Status(400, {"error": {"message": "maximum context length is 4096", "code": "x"}})},
        "window",
        "maximum context length is 4096",
    ),
}


@pytest.mark.parametrize(("changes", "part", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
async def test_a_part_that_does_not_work_says_why_and_the_others_are_tried(
    changes: dict[str, Any], part: str, expected: str
) -> None:
    with ScriptedModel(willing(**changes), chunk_chars=10_000 if part == "streaming" else 7) as model:
        results = await try_all(model)
    assert {name for name, result in results.items() if result.outcome != "works"} == {part}, results
    assert expected in results[part].message
    assert KEY not in results[part].message
    assert is_usable(results.values()) == (part not in ("plan", "tool_call"))


async def test_a_server_that_cuts_silently_is_noticed_by_the_tokens_that_it_counts() -> None:
    with FamilyServer(OLLAMA, willing(), window_tokens=4096) as server:
        results = await try_all(server)
    assert results["window"].outcome == "does_not_work"
    assert "did not say so: its window is too small" in results["window"].message


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "refused the API key"), (404, 'does not have the model "m"'), (503, "answered 503")],
)
async def test_after_an_error_of_the_whole_server_the_other_parts_are_not_tried(status: int, expected: str) -> None:
    with ScriptedModel(lambda _: Status(status, {"error": {"message": f"no, {KEY}"}})) as model:
        results = await try_all(model)
    assert expected in results["plan"].message
    assert KEY not in results["plan"].message
    assert [result.outcome for result in results.values()] == ["does_not_work", *["not_tried"] * 4]
    assert len(model.requests) == 1


async def test_a_silent_server_is_given_up_after_the_time_of_a_part() -> None:
    with ScriptedModel(willing(plan=Hang())) as model:
        async with LlmClient(model.url, KEY, "m", outbound=Outbound()) as llm:
            result = await Trial(llm, part_seconds=0.3).try_part("plan")
    assert (result.outcome, result.message) == ("does_not_work", "It was not finished after 0.3 s")


@pytest.mark.parametrize(
    "turn", [Raw(["{nonsense"]), Status(429, {}, {"Retry-After": "3600"})], ids=["nonsense", "429"]
)
async def test_nothing_is_waited_out(turn: Turn) -> None:
    with ScriptedModel(willing(plan=turn)) as model:
        async with LlmClient(model.url, KEY, "m", outbound=Outbound()) as llm:
            result = await Trial(llm, part_seconds=HANG_SECONDS).try_part("plan")
    assert result.outcome == "does_not_work"
    assert "not finished" not in result.message
    assert len(model.requests) == 1


async def test_an_unexpected_error_is_the_reason_of_its_part_only(caplog: pytest.LogCaptureFixture) -> None:
    async def forget(facts: Mapping[str, Any]) -> None:
        raise ZeroDivisionError

    with ScriptedModel(willing(), pages={"/v1/models": {"data": [{"id": "m", "max_model_len": 32_768}]}}) as model:
        async with LlmClient(model.url, KEY, "m", outbound=Outbound(), on_learnt=forget) as llm:
            trial = Trial(llm, part_seconds=HANG_SECONDS)
            window, picture = await trial.try_part("window"), await trial.try_part("picture")
    assert (window.outcome, window.message) == (
        "does_not_work",
        "Moorage could not read the answer (ZeroDivisionError)",
    )
    assert "ZeroDivisionError" in caplog.text
    assert picture.outcome == "works"


async def test_the_long_request_is_as_long_as_asked() -> None:
    with ScriptedModel(willing()) as model:
        async with LlmClient(model.url, KEY, "m", outbound=Outbound()) as llm:
            result = await Trial(llm, part_seconds=HANG_SECONDS, window_tokens=50_000).try_part("window")
    assert result.outcome == "works"
    assert len(str(model.requests[0]["messages"])) > 3.3 * 50_000


@pytest.mark.parametrize(
    ("listed", "configured", "outcome", "said"),
    [
        (32_768, None, "works", "its window has 32768 tokens, and Moorage uses 32768"),
        (32_768, 20_000, "works", "its window has 32768 tokens, and Moorage uses 20000"),
        (32_768, 64_000, "does_not_work", "set `context_tokens` (or MOORAGE_LLM_CONTEXT_TOKENS) to 32768 or less"),
        (None, 20_000, "works", "does not say the size of its window; Moorage counts on 20000 tokens"),
    ],
    ids=["learnt", "set", "set too large", "not listed"],
)
async def test_the_window_that_the_server_lists_is_compared_with_the_one_that_is_used(
    listed: int | None, configured: int | None, outcome: str, said: str
) -> None:
    models = {"data": [{"id": "m"} | ({"max_model_len": listed} if listed else {})]}
    headers = {"authorization": "Token of-the-gate"}
    with ScriptedModel(willing(), pages={"/v1/models": models}) as model:
        async with LlmClient(
            model.url, KEY, "m", outbound=Outbound(), context_tokens=configured, headers=headers
        ) as llm:
            result = await Trial(llm, part_seconds=HANG_SECONDS).try_part("window")
    assert (result.outcome, said in result.message) == (outcome, True), result.message
    assert {seen["authorization"] for seen in model.headers} == {"Token of-the-gate"}


def test_the_picture_is_a_whole_png() -> None:
    picture = orange_square(pixels=3)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    length, kind = struct.unpack(">I4s", picture[8:16])
    assert (length, kind, struct.unpack(">II", picture[16:24])) == (13, b"IHDR", (3, 3))
    size = struct.unpack(">I", picture[33:37])[0]
    assert zlib.decompress(picture[41 : 41 + size]) == (b"\0" + bytes((255, 128, 0)) * 3) * 3

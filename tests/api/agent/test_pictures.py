"""Models that see get pictures; the others are told in words what they miss."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from moorage_api.agent.model.outgoing.profiles import choose
from moorage_api.agent.model.outgoing.request import BRIDGE
from moorage_api.agent.ports import PICTURES, AgentLimits, GateResult
from moorage_api.agent.tokens import PICTURE_TOKENS, count_tokens
from moorage_api.events.schemas import DoneEvent, FileInfo, MessageEvent, ToolEvent
from support.agent import Bench, Killed, shell
from support.llm import Call, Calls, Finish, Plan, Request, Say, ScriptedModel, Status, Turn
from support.providers.families import FAMILIES
from support.providers.server import Family, FamilyServer

SEEING = "gpt-4o"
BLIND = "deepseek-v4-flash"
PATH = "/home/ubuntu/workspace/chart.png"
LOOK = Call("browser_screenshot")
READ = Call("read_file", {"filepath": PATH})


def png(width: int = 64, height: int = 48, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


PAGE, CHART = png(1280, 900), png(colour="blue")


def sandbox(function: str, _args: Mapping[str, Any]) -> GateResult:
    """A browser with a page, and a picture as the only file."""
    if function == "read_file":
        described = {"media_type": "image/png", "width": 64, "height": 48, "size": len(CHART)}
        return GateResult("succeeded", {"content": "", "picture": described})
    page = {"url": "https://example.org/", "title": "Page", "elements": []}
    return GateResult("succeeded", page | {"screenshot_png": base64.b64encode(PAGE).decode()})


def script(*calls: Turn) -> list[Turn]:
    return [Plan("Look", "I will look.", ["Look"]), *calls, Finish("It is red."), Say("It is red.")]


def bench(model: ScriptedModel, name: str = SEEING, **given: Any) -> Bench:
    made = Bench(model, model_name=name, **given)
    made.gate.answer = sandbox
    made.attachments.sandbox[PATH] = CHART
    return made


def parts(request: Request, kind: str = "image_url") -> list[Any]:
    contents = [message["content"] for message in request["messages"] if isinstance(message["content"], list)]
    return [part[kind] for content in contents for part in content if part["type"] == kind]


def decode_pictures(request: Request) -> list[bytes]:
    urls = [part["url"] for part in parts(request)]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def turn(turns: Sequence[Turn], request: Request) -> Turn:
    """The turn whose place is the number of the model's own messages in the request."""
    said = [message for message in request["messages"] if message["role"] == "assistant"]
    return turns[len([message for message in said if message["content"] != BRIDGE["content"]])]


@pytest.mark.parametrize(("call", "data"), [(LOOK, PAGE), (READ, CHART)], ids=["the page", "a file"])
async def test_a_model_that_sees_gets_the_picture_behind_the_result(call: Call, data: bytes) -> None:
    with ScriptedModel(script(call)) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    request = model.requests[2]
    assert [message["role"] for message in request["messages"][-2:]] == ["tool", "user"]
    assert isinstance(request["messages"][-2]["content"], str)
    assert ("1280x900" if call is LOOK else "64x48") in request["messages"][-2]["content"]
    assert decode_pictures(request) == [data]
    assert request["messages"][-1]["content"][0]["text"].startswith("[Moorage]")
    assert PICTURES not in json.dumps(model.requests)


async def test_the_transcript_holds_a_reference_and_not_the_picture() -> None:
    with ScriptedModel(script(LOOK)) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    stored = json.dumps(made.log.transcript)
    assert base64.b64encode(PAGE).decode()[:200] not in stored
    assert PAGE in made.attachments.blobs.values()
    assert {event.type for event in made.log.all(ToolEvent)} == {"tool"}
    assert set(made.log.last(ToolEvent).content) == {"screenshot_key"}


@pytest.mark.parametrize("call", [LOOK, READ], ids=["the page", "a file"])
async def test_a_model_that_does_not_see_is_told_so_and_goes_on(call: Call) -> None:
    with ScriptedModel(script(call)) as model:
        made = bench(model, BLIND)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "done"
    assert not parts(model.requests[2])
    result = model.requests[2]["messages"][-1]
    assert result["role"] == "tool"
    assert "cannot see pictures" in result["content"]
    assert "pixels" in result["content"]


async def test_the_users_picture_is_in_the_first_request() -> None:
    file = FileInfo(id="1", filename="photo.png", mime_type="image/png", size=len(CHART))
    with ScriptedModel([Plan("Photo", "It is blue.", [])]) as model:
        made = bench(model)
        made.attachments.sandbox["/home/ubuntu/workspace/upload/photo.png"] = CHART
        made.log.say("What is on it?", file)
        await made.run()
    assert decode_pictures(model.requests[0]) == [CHART]
    (words,) = parts(model.requests[0], "text")
    assert "What is on it?" in words
    assert "upload/photo.png" in words


@pytest.mark.parametrize(
    ("name", "mime_type", "data", "words"),
    [
        ("photo.png", "image/png", b"only text", "cannot be shown"),
        ("logo.svg", "image/svg+xml", b"<svg/>", "logo.svg"),
        ("notes.txt", "text/plain", b"hello", "notes.txt"),
    ],
)
async def test_a_file_that_is_no_picture_is_only_named(name: str, mime_type: str, data: bytes, words: str) -> None:
    file = FileInfo(id="1", filename=name, mime_type=mime_type, size=len(data))
    with ScriptedModel([Plan("File", "I see.", [])]) as model:
        made = bench(model)
        made.attachments.sandbox[f"/home/ubuntu/workspace/upload/{name}"] = data
        made.log.say("Look", file)
        await made.run()
    assert made.log.types()[-1] == "done"
    assert not parts(model.requests[0])
    assert words in model.requests[0]["messages"][-1]["content"]


async def test_pictures_of_parallel_calls_follow_all_their_results() -> None:
    with ScriptedModel(script(Calls(LOOK, READ))) as model:
        made = bench(model)
        made.log.say("Compare")
        await made.run()
    messages = model.requests[2]["messages"]
    assert [message["role"] for message in messages[-4:]] == ["assistant", "tool", "tool", "user"]
    assert decode_pictures(model.requests[2]) == [PAGE, CHART]


each_family = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])


@each_family
async def test_every_family_gets_the_picture_or_words_in_a_form_that_it_takes(family: Family) -> None:
    turns = script(Calls(LOOK, READ), LOOK)
    with FamilyServer(family, lambda request: turn(turns, request)) as server:
        made = bench(server, family.model)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "done", made.log.events[-1]
    last = server.requests[-1]
    if choose(family.model).sees:
        assert decode_pictures(last) == [PAGE, CHART, PAGE]
    else:
        assert "cannot see pictures" in json.dumps(last)
        assert not parts(last)


REFUSALS: dict[str, tuple[int, object]] = {
    "DeepSeek": (
        400,
        {"error": {"message": "Failed to deserialize: messages[5]: unknown variant `image_url`, expected `text`"}},
    ),
    "OpenAI": (
        400,
        {"error": {"message": "Invalid content type. image_url is only supported by certain models.", "code": None}},
    ),
    "OpenRouter": (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
    "vLLM": (400, {"message": "Qwen/Qwen3-8B is not a multimodal model", "code": 400}),
    "vLLM with a limit of none": (400, {"message": "At most 0 image(s) may be provided in one prompt."}),
    "llama.cpp": (
        500,
        {"error": {"code": 500, "message": "image input is not supported - hint: you may need to provide the mmproj"}},
    ),
    "Kimi": (400, {"error": {"message": "Image input not supported for model moonshot-v1-8k"}}),
    "Bedrock": (400, {"detail": "This model doesn't support the image content block that you provided."}),
    "Groq": (400, {"error": {"message": "messages[5].content must be a string"}}),
    "a schema": (
        422,
        {"detail": [{"loc": ["body", "messages", 5, "content"], "msg": "Input should be a valid string"}]},
    ),
    "Fireworks": (400, {"error": {"message": "This model does not support image inputs"}}),
    "Mistral": (400, {"message": "Image input is not enabled for this model"}),
}


@pytest.mark.parametrize(("status", "body"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_takes_no_pictures_gets_words_from_then_on(status: int, body: object) -> None:
    turns = script(LOOK, LOOK)

    def answer(request: Request) -> Turn:
        if parts(request):
            return Status(status, body)
        return turn(turns, request)

    with ScriptedModel(answer) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "done"
    assert made.facts["sees"] is False
    assert sum(bool(parts(request)) for request in model.requests) == 1
    assert "cannot see pictures" in json.dumps(model.requests[-1])


ONE_PICTURE = {
    "OpenAI": "You uploaded an unsupported image. Please make sure your image is valid.",
    "Anthropic": "messages.5.content.1.image.source.base64: image exceeds 5 MB maximum",
    "Anthropic, damaged": "Could not process image",
    "Gemini": "Unable to process input image. Please retry or report",
    "a format": "This model does not support image format image/png",
    "no words": "Bad request",
}


@pytest.mark.parametrize("words", ONE_PICTURE.values(), ids=ONE_PICTURE)
async def test_the_refusal_of_one_picture_neither_ends_the_run_nor_blinds_the_model(words: str) -> None:
    turns = script(LOOK, READ)
    refused = base64.b64encode(PAGE).decode()

    def answer(request: Request) -> Turn:
        if any(refused in part["url"] for part in parts(request)):
            return Status(400, {"error": {"message": words}})
        return turn(turns, request)

    with ScriptedModel(answer) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "done"
    assert made.facts.get("sees") is not False
    assert decode_pictures(model.requests[-1]) == [CHART], "the next picture is shown again"


async def test_an_error_that_no_picture_causes_is_reported_and_keeps_the_pictures() -> None:
    turns: list[Turn] = [Plan("Look", "I will look.", ["Look"]), LOOK, Status(400, {"error": {"message": "No"}})]
    with ScriptedModel(turns) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "error"
    assert made.log.state["shortened"]["pictures_before"] == 0


async def test_a_server_with_a_limit_gets_no_more_pictures_than_it_takes() -> None:
    turns = script(LOOK, READ, LOOK)

    def answer(request: Request) -> Turn:
        if len(parts(request)) > 1:
            return Status(400, {"message": "At most 1 image(s) may be provided in one prompt."})
        return turn(turns, request)

    with ScriptedModel(answer) as model:
        made = bench(model)
        made.log.say("What is it?")
        await made.run()
    assert made.log.types()[-1] == "done"
    assert made.facts["max_pictures"] == 1
    assert sum(len(parts(request)) > 1 for request in model.requests) == 1
    assert len(parts(model.requests[-1])) == 1


async def test_many_pictures_are_left_out_in_few_steps_and_otherwise_the_request_only_grows() -> None:
    count = 24
    turns = script(*[Calls(LOOK, shell(f"echo {number}")) for number in range(count)])
    with ScriptedModel(turns) as model:
        made = bench(model, limits=AgentLimits(max_iterations=99, max_pictures=8), context_tokens=200_000)
        made.log.say("Watch the page")
        await made.run()
    sent = [request["messages"] for request in model.requests]
    assert max(len(parts(request)) for request in model.requests) == 8
    grown = sum(after[: len(before)] == before for before, after in pairwise(sent))
    assert len(sent) - 1 - grown <= count / 4


async def test_a_server_that_counts_few_tokens_for_a_picture_is_not_said_to_cut_requests() -> None:
    with ScriptedModel(script(*[LOOK] * 8)) as model:
        model.picture_tokens = 85
        made = bench(model, context_tokens=200_000)
        made.log.say("Watch the page")
        await made.run()
    assert made.log.types()[-1] == "done"
    assert made.log.state["shortened"]["context_tokens"] is None
    said = [event.message for event in made.log.all(MessageEvent) if event.role == "assistant"]
    assert said == ["I will look.", "It is red."]


async def test_the_same_bytes_are_sent_after_a_crash() -> None:
    def kill(number: int, when: str) -> None:
        if when == "after" and number == 5:
            raise Killed

    with ScriptedModel(script(LOOK, READ)) as model:
        made = bench(model)
        made.log.say("What is it?")
        with pytest.raises(Killed):
            await made.run(made.journal(kill))
        await made.run()
    assert made.log.types()[-1] == "done"
    assert made.log.all(DoneEvent)
    seen = [decode_pictures(request) for request in model.requests if parts(request)]
    assert seen[0][0] == PAGE
    assert all(pictures[: len(seen[0])] == seen[0] for pictures in seen)
    assert seen[-1] == [PAGE, CHART]


async def test_a_picture_that_cannot_be_loaded_is_named_in_words() -> None:
    with ScriptedModel(script(LOOK)) as model:
        made = bench(model)
        made.log.say("What is it?")
        read, made.attachments.blobs = made.attachments.load_picture, {}

        async def lose(key: str) -> str | None:
            made.attachments.blobs.clear()
            return await read(key)

        made.attachments.load_picture = lose  # type: ignore[method-assign]
        await made.run()
    assert made.log.types()[-1] == "done"
    assert not parts(model.requests[2])
    assert "cannot be loaded now" in json.dumps(model.requests[2])


@pytest.mark.parametrize(
    ("message", "least", "most"),
    [
        ({"role": "user", "content": "x", PICTURES: [{"key": "k" * 200}]}, PICTURE_TOKENS, PICTURE_TOKENS + 50),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 900_000}}]},
            PICTURE_TOKENS,
            PICTURE_TOKENS + 50,
        ),
        ({"role": "user", "content": [{"type": "text", "text": "x" * 3500}]}, 1000, 1100),
    ],
    ids=["reference", "part", "text part"],
)
def test_a_picture_counts_as_its_tokens_and_never_as_its_base64(message: dict[str, Any], least: int, most: int) -> None:
    assert least <= count_tokens(message) <= most


NAMES = {
    **dict.fromkeys(["gpt-4o", "openai/gpt-4.1-mini", "gpt-5.6", "o3", "o4-mini", "claude-sonnet-4-5"], True),
    **dict.fromkeys(["anthropic.claude-sonnet-4-5-20250929-v1:0", "gemini-3-pro-preview", "gemma3:27b"], True),
    **dict.fromkeys(["qwen-vl-max", "qwen3-vl:8b", "Qwen/Qwen2.5-VL-7B-Instruct", "kimi-k2.6", "glm-4.6v"], True),
    **dict.fromkeys(["pixtral-12b", "mistral-medium-latest", "mistral-small-2506", "grok-4", "llava:13b"], True),
    **dict.fromkeys(["meta-llama/llama-4-scout", "llama3.2-vision", "amazon.nova-lite-v1:0", "glm-4.5v"], True),
    **dict.fromkeys(["deepseek-flash", "deepseek/deepseek-v4.1-flash"], True),
    **dict.fromkeys(
        ["deepseek-v4-flash", "qwen3:8b", "kimi-k2-0905-preview", "glm-5.2", "o3-mini", "gpt-oss:20b"], False
    ),
    **dict.fromkeys(["mistral-small-2501", "codestral-latest", "llama-3.3-70b", "gemma3:1b", "grok-3", "phi4"], False),
    **dict.fromkeys(["my-own-model", "gpt-oss:20b", "gpt-3.5-turbo", "claude-2.1"], False),
}


@pytest.mark.parametrize(("name", "sees"), NAMES.items(), ids=NAMES)
def test_the_name_of_a_model_says_whether_it_sees(name: str, sees: bool) -> None:
    assert choose(name).sees is sees

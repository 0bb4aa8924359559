"""The context window of a model: read from its server, named in a refusal, or noticed by what the server counted."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import count
from typing import Any

import pytest

from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.counting import TokenCount, compare
from moorage_api.agent.model.servers.listing import ListingFailures, WindowListing
from moorage_api.agent.model.servers.windows import DEFAULT_TOKENS, MOST_LISTED_TOKENS, window_in_list, window_in_words
from moorage_api.agent.state import AgentState
from moorage_api.events.schemas import ErrorEvent, MessageEvent
from moorage_api.outbound import Outbound, ResponseLimits
from support.agent import Bench, shell, shell_output
from support.llm import Finish, Hang, Plan, Request, Say, ScriptedModel, Status, Turn
from support.providers.families import OLLAMA
from support.providers.server import FamilyServer

WORDS = {
    "OpenAI": (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
        8192,
    ),
    "OpenAI's configured limit": (
        "Input tokens exceed the configured limit of 272000 tokens. You sent 345623.",
        272_000,
    ),
    "OpenRouter": ("This endpoint's maximum context length is 40960 tokens. However, you requested 42988.", 40_960),
    "vLLM": ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 8192),
    "SGLang": ("The input (61709 tokens) is longer than the model's context length (40960 tokens).", 40_960),
    "SGLang's memory": ("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).", 59_862),
    "Anthropic": ("prompt is too long: 213462 tokens > 200000 maximum", 200_000),
    "Anthropic with max_tokens": (
        "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000",
        200_000,
    ),
    "Gemini": ("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", 1_048_575),
    "Qwen": ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]", 30_720),
    "Kimi": ("Invalid request: Your request exceeded model token limit: 131072 (requested: 140000)", 131_072),
    "xAI": ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 131_072),
    "Together": ("`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 inputs", 8193),
    "Mistral": ("Prompt contains 40000 tokens, too large for model with 32768 maximum context length", 32_768),
    "llama.cpp": ("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it", 8192),
    "LM Studio": (
        "Trying to keep the first 13055 tokens, the model is loaded with context length of only 4096 tokens",
        4096,
    ),
    "LM Studio's n_keep": ("is greater than the context length (n_keep: 13055>= n_ctx: 4096).", 4096),
    "Copilot": ("prompt token count of 93854 exceeds the limit of 90000", 90_000),
    "with commas": ("maximum context length is 131,072 tokens", 131_072),
    "no number": ("Input is too long for requested model.", None),
    "an absurd number": ("maximum context length is 1 tokens", None),
    "a rate": ("Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443.", None),
}


@pytest.mark.parametrize(("words", "tokens"), WORDS.values(), ids=WORDS.keys())
def test_the_window_is_read_from_the_words_of_a_refusal(words: str, tokens: int | None) -> None:
    assert window_in_words(words) == tokens


LISTS: dict[str, tuple[Any, int | None]] = {
    "vLLM": ({"data": [{"id": "m", "owned_by": "vllm", "root": "x/m", "max_model_len": 8192}]}, 8192),
    "OpenRouter": (
        {"data": [{"id": "m", "context_length": 1_048_576, "top_provider": {"context_length": 262_000}}]},
        262_000,
    ),
    "Groq": ({"data": [{"id": "m", "context_window": 131_072, "max_completion_tokens": 1024}]}, 131_072),
    "Mistral": ({"data": [{"id": "m-1", "aliases": ["m"], "max_context_length": 32_768}]}, 32_768),
    "Together's list": ([{"id": "other", "context_length": 9}, {"id": "m", "context_length": 8192}], 8192),
    "Kimi": ({"data": [{"id": "m", "context_length": 262_144, "supports_image_in": True}]}, 262_144),
    "LiteLLM": ({"data": [{"id": "m", "max_input_tokens": 1_000_000, "max_output_tokens": 128_000}]}, 1_000_000),
    "Copilot": ({"data": [{"id": "m", "capabilities": {"limits": {"max_prompt_tokens": 90_000}}}]}, 90_000),
    "llama.cpp": ({"data": [{"id": "m", "meta": {"n_ctx": 8192, "n_ctx_train": 40_960}}]}, 8192),
    "older llama.cpp": ({"data": [{"id": "m", "meta": {"n_ctx_train": 40_960}}]}, 40_960),
    "llama.cpp under another name": ({"data": [{"id": "/models/x.gguf", "meta": {"n_ctx": 8192}}]}, 8192),
    "LM Studio": ({"data": [{"id": "m", "loaded_context_length": 4096, "max_context_length": 131_072}]}, 4096),
    "LM Studio's newer list": (
        {
            "models": [
                {"id": "m", "loaded_instances": [{"config": {"context_length": 40_000}}], "max_context_length": 9999}
            ]
        },
        40_000,
    ),
    "Ollama": ({"models": [{"name": "m:latest", "model": "m:latest", "context_length": 4096}]}, 4096),
    "Gemini": ({"models": [{"name": "models/m", "inputTokenLimit": 1_048_576}]}, 1_048_576),
    "a text": ({"data": [{"id": "m", "context_length": "8192"}]}, 8192),
    "names only": ({"data": [{"id": "m", "object": "model"}, {"id": "n", "context_length": 8192}]}, None),
    "not loaded": ({"data": [{"id": "m", "meta": {"n_ctx": 0}}]}, None),
    "nonsense": ({"data": [{"id": "m", "context_length": [1], "meta": 3, "loaded_instances": [7]}, "m"]}, None),
    "a truth": ({"data": [{"id": "m", "context_length": True}]}, None),
    "no list": ({"data": "m"}, None),
    "no document": (None, None),
}


@pytest.mark.parametrize(("document", "tokens"), LISTS.values(), ids=LISTS.keys())
def test_the_window_is_read_from_a_list_of_models(document: Any, tokens: int | None) -> None:
    assert window_in_list(document, "m", takes_only_one=True) == tokens


TODAY = date(2026, 11, 28)


class StoredFacts:
    """What is stored about the model."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.failures = ListingFailures(600, clock=self.read_clock)
        self.now = 0.0
        self.seconds_per_look = 0.0

    async def add(self, facts: Any) -> None:
        self.known |= facts

    def read_clock(self) -> float:
        self.now += self.seconds_per_look
        return self.now

    def client(
        self,
        model: ScriptedModel,
        *,
        today: date = TODAY,
        context_tokens: int | None = None,
        api_key: str = "sk-for-tests",
    ) -> LlmClient:
        return LlmClient(
            model.url,
            api_key,
            "m",
            outbound=Outbound(),
            context_tokens=context_tokens,
            facts=self.known,
            on_learnt=self.add,
            today=lambda: today,
            listing_failures=self.failures,
            backoff_seconds=0.01,
        )

    async def read(self, model: ScriptedModel, **changes: Any) -> int:
        async with self.client(model, **changes) as llm:
            await llm.read_window()
            return llm.context_tokens


OLLAMA_LIST = {"data": [{"id": "m", "owned_by": "library"}]}
STATUSES: dict[str, tuple[dict[str, object], int]] = {
    "a list": ({"/v1/models": LISTS["vLLM"][0]}, 8192),
    "Ollama with the model loaded": ({"/v1/models": OLLAMA_LIST, "/api/ps": LISTS["Ollama"][0]}, 4096),
    "Ollama without": ({"/v1/models": OLLAMA_LIST, "/api/ps": {"models": []}}, DEFAULT_TOKENS),
    "llama.cpp": (
        {"/v1/models": LISTS["older llama.cpp"][0], "/props": {"default_generation_settings": {"n_ctx": 8192}}},
        8192,
    ),
    "LM Studio": ({"/v1/models": OLLAMA_LIST, "/api/v0/models": LISTS["LM Studio"][0]}, 4096),
    "a very large window": ({"/v1/models": LISTS["Gemini"][0]}, MOST_LISTED_TOKENS),
    "nothing": ({}, DEFAULT_TOKENS),
    "no JSON": ({"/v1/models": "<html>"}, DEFAULT_TOKENS),
    "nested too deeply": ({"/v1/models": "[" * 100_000}, DEFAULT_TOKENS),
    "too large": ({"/v1/models": " " * 9_000_000 + '{"data": []}'}, DEFAULT_TOKENS),
}


@pytest.mark.parametrize(("pages", "tokens"), STATUSES.values(), ids=STATUSES.keys())
async def test_a_server_is_asked_for_its_window(pages: dict[str, object], tokens: int) -> None:
    with ScriptedModel([], pages=pages) as model:
        assert await StoredFacts().read(model) == tokens


async def test_the_server_is_asked_once_a_day_and_then_again() -> None:
    facts = StoredFacts()
    with ScriptedModel([], pages={"/v1/models": LISTS["vLLM"][0]}) as model:
        for _ in range(3):
            assert await facts.read(model) == 8192
        assert model.pages_read.count("/v1/models") == 1
        model.pages["/v1/models"] = LISTS["LM Studio"][0]
        assert await facts.read(model, today=TODAY + timedelta(days=1)) == 4096


async def test_a_server_that_cannot_be_reached_is_harmless() -> None:
    with ScriptedModel([]) as model:
        pass
    assert await StoredFacts().read(model) == DEFAULT_TOKENS


async def test_a_server_that_is_slow_to_fail_is_asked_again_after_a_while() -> None:
    facts = StoredFacts()
    facts.seconds_per_look = 1
    with ScriptedModel([], pages={"/v1/models": Status(503)}) as model:
        for _ in range(3):
            assert await facts.read(model) == DEFAULT_TOKENS
        assert model.pages_read.count("/v1/models") == 1
        model.pages["/v1/models"] = LISTS["vLLM"][0]
        facts.now += 500
        assert await facts.read(model) == DEFAULT_TOKENS
        facts.now += 100
        assert await facts.read(model) == 8192


async def test_a_server_that_fails_at_once_is_asked_in_the_next_turn() -> None:
    """For example a local server that is started between two messages."""
    facts = StoredFacts()
    with ScriptedModel([], pages={"/v1/models": Status(503)}) as model:
        assert await facts.read(model) == DEFAULT_TOKENS
        model.pages["/v1/models"] = LISTS["vLLM"][0]
        assert await facts.read(model) == 8192


async def test_a_server_is_asked_at_once_with_a_new_key() -> None:
    facts = StoredFacts()
    facts.seconds_per_look = 1
    with ScriptedModel([], pages={"/v1/models": Status(401)}) as model:
        await facts.read(model)
        model.pages["/v1/models"] = LISTS["vLLM"][0]
        assert await facts.read(model) == DEFAULT_TOKENS
        assert await facts.read(model, api_key="sk-corrected") == 8192


async def test_a_list_that_does_not_come_is_waited_for_once() -> None:
    """The time limit is so short that no answer comes in time."""
    ticks = count()
    failures = ListingFailures(clock=lambda: next(ticks))
    with ScriptedModel([], pages={"/v1/models": Hang()}) as model:
        listing = WindowListing(
            model.url, {}, outbound=Outbound(), failures=failures, limits=ResponseLimits(1000, seconds=0.2)
        )
        for _ in range(2):
            assert await listing.ask("m") == (None, False)
        assert model.pages_read.count("/v1/models") <= 1


def window_of(days_ago: int, *, source: str = "list") -> dict[str, Any]:
    return {"tokens": 8192, "source": source, "on": (TODAY - timedelta(days=days_ago)).isoformat()}


@pytest.mark.parametrize("source", ["list", "refusal"])
async def test_a_known_window_stays_while_the_server_cannot_be_asked(source: str) -> None:
    facts = StoredFacts()
    facts.known["window"] = before = window_of(9, source=source)
    with ScriptedModel([]) as model:
        pass
    assert await facts.read(model) == 8192
    assert facts.known["window"] == before, "the next client asks again"


async def test_a_listed_window_stays_when_the_server_does_not_say_it_any_more() -> None:
    facts = StoredFacts()
    facts.known["window"] = window_of(1)
    with ScriptedModel([], pages={"/v1/models": OLLAMA_LIST}) as model:
        assert await facts.read(model) == 8192
        assert facts.known["window"] == window_of(0)
        assert await facts.read(model) == 8192
        assert model.pages_read.count("/v1/models") == 1


async def test_a_window_that_the_admin_has_set_is_not_asked_for() -> None:
    with ScriptedModel([], pages={"/v1/models": LISTS["vLLM"][0]}) as model:
        assert await StoredFacts().read(model, context_tokens=100_000) == 100_000
        assert model.pages_read == []


@pytest.mark.parametrize("fact", [None, 7, {}, {"tokens": "x", "source": "list", "on": "2026-11-28"}, {"source": "?"}])
async def test_a_stored_fact_of_another_version_is_ignored(fact: object) -> None:
    facts = StoredFacts()
    facts.known["window"] = fact
    with ScriptedModel([], pages={"/v1/models": LISTS["vLLM"][0]}) as model:
        assert await facts.read(model) == 8192


class LongTask:
    """Runs commands with long outputs; counts them itself, because the transcript may be shortened."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.made = 0

    def __call__(self, request: Request) -> Turn:
        if "tools" not in request:
            return Say("Done")
        names = [tool["function"]["name"] for tool in request["tools"]]
        if "make_plan" in names and not any(message.get("tool_calls") for message in request["messages"]):
            return Plan("T", "M", ["measure"])
        self.made += 1
        return shell(f"measure {self.made}") if self.made <= self.calls else Finish()


async def work(model: ScriptedModel, facts: StoredFacts, **changes: Any) -> Bench:
    bench = Bench(model)
    bench.gate.answer = lambda _function, _args: shell_output("a line of words\n" * 300)
    bench.log.say("Measure the moon")
    async with facts.client(model, **changes) as llm:
        await bench.run(llm=llm)
    return bench


async def test_the_window_that_a_refusal_names_holds_for_this_and_later_sessions() -> None:
    facts, refused = StoredFacts(), []

    def answer(request: Request) -> Turn:
        tokens = len(str(request["messages"]) + str(request.get("tools"))) // 4 + (request["max_tokens"] or 0)
        if tokens > 16_000:
            refused.append(tokens)
            return Status(400, {"error": {"message": f"maximum context length is 16000 tokens, you sent {tokens}"}})
        return task(request)

    task = LongTask(15)
    with ScriptedModel(answer) as model:
        bench = await work(model, facts)
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        assert facts.known["window"] == {"tokens": 16_000, "source": "refusal", "on": TODAY.isoformat()}
        assert 1 <= len(refused) <= 3
        task.made = 0
        before = len(model.requests)
        assert (await work(model, facts)).log.types()[-1] == "done"
        assert all(request["max_tokens"] <= 4_000 for request in model.requests[before:])
        assert len(refused) <= 3


async def test_the_admins_window_stays_for_later_sessions_and_shrinks_for_this_one() -> None:
    too_long = Status(400, {"error": {"message": "maximum context length is 9000 tokens"}})
    facts, asked = StoredFacts(), []

    def answer(_: Request) -> Turn:
        asked.append(1)
        return too_long if len(asked) == 1 else Plan("T", "Hello", [])

    with ScriptedModel(answer) as model:
        bench = await work(model, facts, context_tokens=50_000)
        async with facts.client(model, context_tokens=50_000) as llm:
            assert AgentState.model_validate(bench.log.state).shortened.window(llm) == 9_000
            assert AgentState().shortened.window(llm) == 50_000


async def test_a_rate_limit_that_names_a_limit_changes_no_window() -> None:
    words = "Request too large on tokens per minute: maximum context length is 6000, Limit 6000, Requested 14137"
    facts = StoredFacts()
    with ScriptedModel(lambda _: Status(429, {"error": {"message": words}})) as model:
        bench = await work(model, facts)
    assert bench.log.last(ErrorEvent).code == "llm_rate_limited"
    assert "window" not in facts.known
    assert bench.log.state["shortened"]["context_tokens"] is None


COUNTS: dict[str, tuple[list[tuple[int, int]], str]] = {
    "a fair count": ([(9_000, 8_500), (12_000, 11_000)], "whole"),
    "a large ratio": ([(9_000, 20_000), (12_000, 26_000)], "whole"),
    "repeated text has few tokens": ([(9_000, 8_500), (13_000, 8_800)], "unclear"),
    "the same for a longer request": ([(9_000, 8_500), (9_200, 8_500)], "cut"),
    "the same for the same request": ([(9_000, 8_500), (9_000, 8_500)], "whole"),
    "a window's size after growth": ([(9_000, 8_100), (9_600, 8_192)], "cut"),
    "hardly more after growth": ([(9_000, 8_100), (9_600, 8_150)], "unclear"),
    "the conversation was shortened": ([(30_000, 28_000), (9_000, 8_500)], "whole"),
    "less than before": ([(9_000, 8_500), (30_000, 28_000), (34_000, 16_386)], "cut"),
    "much less than expected": ([(9_000, 8_500), (30_000, 9_500)], "cut"),
    "the first request, to a window": ([(9_000, 4_096)], "cut"),
    "the first request, to exactly a window": ([(5_000, 4_096)], "cut"),
    "the first request, to about a window": ([(5_000, 4_090)], "whole"),
    "the first request, to half of one": ([(9_000, 2_051)], "cut"),
    "the first request, to anything": ([(9_000, 3_500)], "unclear"),
    "without what was cached": ([(9_000, 8_500), (9_500, 400), (14_000, 4_500)], "whole"),
    "the first was cached": ([(9_000, 300), (14_000, 4_096)], "whole"),
    "a short request": ([(500, 90)], "whole"),
    "no count": ([(9_000, 0)], "whole"),
}


@pytest.mark.parametrize(("counts", "verdict"), COUNTS.values(), ids=COUNTS.keys())
def test_a_cut_request_is_recognised_by_the_servers_count(counts: list[tuple[int, int]], verdict: str) -> None:
    count, found = TokenCount(), ""
    for sent, counted in counts:
        count, found = compare(count, model="m", sent=sent, counted=counted)
    assert found == verdict
    assert 0.8 <= count.ratio <= 2.5


def test_the_count_of_another_model_begins_anew() -> None:
    count, _ = compare(TokenCount(), model="m", sent=9_000, counted=18_000)
    other, _ = compare(count, model="n", sent=9_000, counted=9_000)
    assert (count.ratio, other.ratio) == (2, 1)


async def test_a_server_with_many_tokens_for_a_text_is_not_sent_more_than_its_window_holds() -> None:
    """The first answers show how the server counts, and later requests fit by the server's count."""
    task, refused, counts = LongTask(30), [], []

    def answer(request: Request) -> Turn:
        tokens = int(len(str(request["messages"]) + str(request.get("tools"))) / 3.5 * 2)
        counts.append(tokens)
        if tokens > 40_000:
            refused.append(tokens)
            return Status(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
        return task(request)

    class Counting(ScriptedModel):
        def _usage_events(self, turn: Say, request: Request) -> list[str]:
            said = super()._usage_events(turn, request)
            return [
                event.replace(f'"prompt_tokens": {_prompt(event)}', f'"prompt_tokens": {counts[-1]}') for event in said
            ]

    with Counting(answer) as model:
        bench = await work(model, StoredFacts(), context_tokens=40_000)
    assert bench.log.types()[-1] == "done", bench.log.events[-1]
    assert refused == []


def _prompt(event: str) -> str:
    return event.partition('"prompt_tokens": ')[2].partition(",")[0]


def window_notices(bench: Bench) -> list[str]:
    return [event.message for event in bench.log.all(MessageEvent) if "reads only about" in event.message]


@pytest.mark.parametrize("pages", [{}, {"/api/ps": {"models": [{"name": "m", "context_length": 16_384}]}}])
async def test_a_server_that_cuts_silently_is_noticed_and_the_user_is_told_once(pages: dict[str, object]) -> None:
    facts, task = StoredFacts(), LongTask(25)
    with FamilyServer(OLLAMA, task, window_tokens=16_384) as model:
        model.pages = pages
        bench = await work(model, facts)
        assert bench.log.types()[-1] == "done", bench.log.events[-1]
        cut = len(model.cut_requests)
        assert 1 <= cut <= (3 if pages else 5), "a cut of a few tokens is not noticed, a clear one is"
        assert len(window_notices(bench)) == 1
        assert facts.known["window"]["source"] == "usage"
        assert 12_000 < facts.known["window"]["tokens"] <= 16_384
        task.made = 0
        bench.log.say("Measure it again")
        async with facts.client(model) as llm:
            await bench.run(llm=llm)
        assert len(model.cut_requests) == cut
        assert len(window_notices(bench)) == 1


async def test_a_window_that_is_too_small_for_the_tools_is_said_and_the_work_goes_on() -> None:
    with FamilyServer(OLLAMA, LongTask(1), window_tokens=4_096) as model:
        bench = await work(model, StoredFacts())
    assert len(window_notices(bench)) == 1
    assert "4,0" in window_notices(bench)[0]

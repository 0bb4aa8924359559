"""Client of one model at an OpenAI-compatible endpoint: it learns what the server takes, and asks in that form."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from moorage_api.agent.model.endpoint import Endpoint, OnCall, OnProgress, OnStart
from moorage_api.agent.model.incoming.answers import DEFAULT_LIMITS, Answer, AnswerLimits
from moorage_api.agent.model.incoming.text_calls import TextCalls
from moorage_api.agent.model.outgoing import profiles
from moorage_api.agent.model.outgoing.pictures import PictureCache, ReadPicture
from moorage_api.agent.model.outgoing.request import Offer, RequestSettings, build_body, disobeys, restricts
from moorage_api.agent.model.patience import OnWait, Timing, ask_patiently
from moorage_api.agent.model.servers.errors import LlmError, RefusedError, RetryableError, explain
from moorage_api.agent.model.servers.learning import learn, select_lasting
from moorage_api.agent.model.servers.listing import ListingFailures, WindowListing
from moorage_api.agent.model.servers.refusals import find_secrets, mask_secrets
from moorage_api.agent.model.servers.windows import DEFAULT_TOKENS, MOST_LISTED_TOKENS, Source, Window
from moorage_api.agent.ports import Function, Message
from moorage_api.outbound import Outbound

MAX_CORRECTIONS = 8
"""Times that one request is sent again in another form because the server refused a part of it."""

OnLearnt = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Stores new facts about the model, so that other runners know them."""


async def forget_facts(facts: Mapping[str, Any]) -> None:
    """The facts are kept in this client only."""


def _today() -> date:
    return datetime.now(UTC).date()


def _authorize(headers: Mapping[str, str], api_key: str) -> dict[str, str]:
    """`headers` with the key, unless they have an Authorization of their own in any spelling."""
    authorized = httpx2.Headers({"Authorization": f"Bearer {api_key}"} if api_key else {})
    authorized.update(headers)
    return dict(authorized)


class LlmClient:
    """One model of one server. Remembers what the server refuses. Close it, or use `async with`."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        temperature: float | None = 0.7,
        max_tokens: int | None = 8192,
        *,
        outbound: Outbound,
        context_tokens: int | None = None,
        idle_seconds: float = 120.0,
        first_byte_seconds: float | None = None,
        patience_seconds: float = 0.0,
        backoff_seconds: float = 0.5,
        on_start: OnStart | None = None,
        on_call: OnCall | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        on_learnt: OnLearnt = forget_facts,
        read_picture: ReadPicture | None = None,
        listing_failures: ListingFailures | None = None,
        answer_limits: AnswerLimits = DEFAULT_LIMITS,
        today: Callable[[], date] = _today,
    ) -> None:
        """`context_tokens`: the window that the admin has set. Without it the window is learnt."""
        self._set_window = context_tokens
        self._window = Window.from_facts(facts or {})
        self._today = today
        self._model = model
        self._base_url = base_url
        self._settings = RequestSettings(model, temperature, max_tokens, dict(extra_body or {}))
        own_headers = dict(headers or {})
        failures = listing_failures or ListingFailures()
        self._listing = WindowListing(base_url, _authorize(own_headers, api_key), outbound=outbound, failures=failures)
        self._secrets = find_secrets(api_key, own_headers)
        self._profile = profiles.correct(profiles.choose(model), facts or {})
        self._on_learnt = on_learnt
        self._pictures = PictureCache(read_picture)
        self._earlier_tools: dict[str, Function] = {}
        self._loses_thoughts = False
        """The last answer with calls came without the fields that only its model understands."""
        self._text_calls = TextCalls(is_proven=self._profile.leaves_calls_in_text)
        self._disobeyed = 0
        """The last answers, one behind another, that called a function which `tool_choice` did not allow."""
        self._timing = Timing(first_byte_seconds or idle_seconds, idle_seconds, patience_seconds, backoff_seconds)
        self._endpoint = Endpoint(
            base_url,
            api_key,
            model,
            outbound=outbound,
            headers=own_headers,
            secrets=self._secrets,
            first_byte_seconds=self._timing.first_byte,
            idle_seconds=self._timing.idle,
            answer_limits=answer_limits,
            on_start=on_start,
            on_call=on_call,
        )

    @property
    def context_tokens(self) -> int:
        """Size of the model's context window: the request and the answer together."""
        return self._set_window or self._learnt_window or DEFAULT_TOKENS

    @property
    def _learnt_window(self) -> int:
        if self._window is None:
            return 0
        return min(self._window.tokens, MOST_LISTED_TOKENS) if self._window.is_fresh(self._today()) else 0

    @property
    def answer_tokens(self) -> int:
        """Room in the window for the answer."""
        return min(self._settings.max_tokens or 8192, self.context_tokens // 4)

    async def read_window(self) -> None:
        """Learn the window from what the server says about itself, at most once a day. A failure is harmless."""
        old = self._window
        if self._set_window is not None or (old and old.is_fresh(self._today())):
            return
        tokens, is_answered = await self._listing.ask(self._model)
        if is_answered:
            listed = old.tokens if old and old.source == "list" else 0
            await self.learn_window(tokens or listed, "list")
        elif old:
            self._window = replace(old, learnt_on=self._today())  # believed until the server can be asked again

    async def find_window(self) -> int | None:
        """Ask the server for the window."""
        tokens, _ = await self._listing.ask(self._model)
        return tokens

    async def learn_window(self, tokens: int, source: Source) -> None:
        """Remember the window of this model, here and for other runs."""
        self._window = Window(tokens, source, self._today())
        await self._on_learnt({"window": self._window.to_fact()})

    @property
    def identity(self) -> str:
        """Name of the model and its server. What we learned about one model does not apply to another."""
        return f"{self._model} at {self._base_url}"

    @property
    def sees(self) -> bool:
        """Whether the model gets pictures. Otherwise it gets words instead of them."""
        return self._profile.sees

    @property
    def max_pictures(self) -> int:
        """Most pictures that the server takes in one request; 0 if it is not known."""
        return self._profile.max_pictures

    @property
    def can_force(self) -> bool:
        """A call can be required. Otherwise only words make the model call the function that is wanted."""
        return self._profile.can_force

    def select_functions(self, functions: Sequence[Function], allowed: Collection[str]) -> list[Function]:
        """The functions that a request carries when only `allowed` may be called."""
        return [item for item in functions if self._profile.obeys_choice or item.name in allowed]

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Function] = (),
        allowed: Collection[str] | None = None,
        force: bool = False,
        max_tokens: int | None = None,
        max_retries: int = 3,
        on_progress: OnProgress | None = None,
        on_wait: OnWait | None = None,
        is_long: bool = False,
    ) -> Answer:
        """Send one request and wait for the whole answer. `force` requires a tool call, if the server supports that.

        `allowed`: names of the `tools` that may be called now. The answer may call others all the same.
        `max_tokens`: a smaller limit of the answer than the configured one.
        `is_long`: the length of the request may be what the server cannot take, so a 500 is waited out less long.
        Raises LlmError: immediately if a retry cannot help, otherwise after `max_retries` retries and `patience`.
        """
        self._earlier_tools |= {tool.name: tool for tool in tools}
        offer = Offer(tools, None if allowed is None else frozenset(allowed), force)

        async def attempt() -> Answer:
            with self._mask_errors():
                return await self._ask_adapting(messages, offer=offer, max_tokens=max_tokens, on_progress=on_progress)

        answer = await ask_patiently(
            attempt, timing=self._timing, max_retries=max_retries, is_long=is_long, on_wait=on_wait
        )
        return await self._read_calls(answer, messages, offer.callable_functions, is_plan=force)

    @contextmanager
    def _mask_errors(self) -> Iterator[None]:
        """No error that leaves the client shows a secret, whatever part of the answer its words come from."""
        try:
            yield
        except (LlmError, RetryableError) as error:
            for item in (error, error.error) if isinstance(error, RetryableError) else (error,):
                item.args = (mask_secrets(str(item), self._secrets),)
            raise

    async def _ask_adapting(
        self, messages: Sequence[Message], *, offer: Offer, max_tokens: int | None, on_progress: OnProgress | None
    ) -> Answer:
        """Send the request; when the server refuses a part of it, send it in another form.

        What that form leaves out is remembered only once the server has answered it.
        """
        settings = self._request_settings().with_limit(max_tokens)
        is_restricted = False
        refused: set[str] = set()
        profile = self._profile
        changes: dict[str, Any] = {}
        stored: dict[str, Any] = {}
        pictures = await self._pictures.load(messages) if self._profile.sees else {}
        while True:
            body = build_body(
                settings,
                profile,
                messages,
                offer=offer,
                earlier_tools=self._earlier_tools,
                pictures=pictures,
            )
            try:
                answer = await self._endpoint.send(
                    body, on_progress=on_progress, is_proven=self._profile.has_native_calls
                )
            except RefusedError as error:
                facts = learn(profile, error.refusal, body)
                if not facts or json.dumps(facts) in refused or len(refused) >= MAX_CORRECTIONS:
                    raise explain(error.refusal, base_url=self._base_url, model=self._model) from error
                refused.add(json.dumps(facts))
                profile = profiles.correct(profile, facts)
                changes |= facts
                stored |= select_lasting(facts, error.refusal)
                continue
            if offer.allowed is None or not disobeys(body, answer):
                if offer.allowed is not None and restricts(body):
                    self._disobeyed = 0
                if changes:
                    await self._learn(changes, stored=stored)
                # the caller compares the usage with the request that it wanted
                return replace(answer, usage=None) if is_restricted else answer
            is_restricted = True
            self._disobeyed += 1
            if self._disobeyed > 1:
                profile = profiles.correct(profile, {"obeys_choice": False})
                changes["obeys_choice"] = stored["obeys_choice"] = False
            offer = replace(offer, functions=offer.callable_functions, allowed=None)

    def _request_settings(self) -> RequestSettings:
        """An answer may not be longer than its part of a window that we know."""
        if self._settings.max_tokens is None or not (self._set_window or self._learnt_window):
            return self._settings
        return replace(self._settings, max_tokens=self.answer_tokens)

    async def _learn(self, facts: Mapping[str, Any], *, stored: Mapping[str, Any] | None = None) -> None:
        """Correct the profile, and store the facts, or only those in `stored`.

        That thinking is off is stored only for a server that loses its model's thoughts. Otherwise they are missing
        because another model answered before, and that is so in one session only.
        """
        self._profile = profiles.correct(self._profile, facts)
        lasting = dict(facts if stored is None else stored)
        if not self._loses_thoughts:
            lasting.pop("is_thinking_off", None)
        if lasting:
            await self._on_learnt(lasting)

    async def _read_calls(
        self, answer: Answer, messages: Sequence[Message], tools: Sequence[Function], *, is_plan: bool
    ) -> Answer:
        """Read calls from the text, if this server is proven to leave them there."""
        if answer.calls and not self._profile.is_thinking_off:
            self._loses_thoughts = not (answer.foreign or any(call.foreign for call in answer.calls))
        if answer.calls and not self._profile.has_native_calls:
            await self._learn({"has_native_calls": True})
        if answer.calls or self._profile.has_native_calls:
            return answer
        names = {tool.name for tool in tools}
        calls = self._text_calls.read(answer.text, names=names, messages=messages, is_plan=is_plan)
        if self._text_calls.is_proven and not self._profile.leaves_calls_in_text:
            await self._learn({"leaves_calls_in_text": True})
        return replace(answer, text="", calls=calls) if calls else answer

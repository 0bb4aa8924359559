"""Build the client of a configured model, and try a model part by part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from moorage_api.agent.model.endpoint import OnCall, OnStart
from moorage_api.agent.model.incoming.answers import DEFAULT_LIMITS, AnswerLimits
from moorage_api.agent.model.llm import LlmClient, OnLearnt, forget_facts
from moorage_api.agent.model.outgoing.pictures import ReadPicture
from moorage_api.agent.model.patience import Timing
from moorage_api.agent.model.servers.listing import ListingFailures
from moorage_api.agent.trial import PARTS, Trial, is_usable
from moorage_api.config.options import LlmTestPart, LlmTestRequest, LlmTestResult
from moorage_api.config.service import ConfigService, LlmConfig
from moorage_api.outbound import Outbound


def build_client(
    config: LlmConfig,
    *,
    outbound: Outbound,
    timing: Timing,
    context_tokens: int | None,
    facts: Mapping[str, Any],
    on_learnt: OnLearnt = forget_facts,
    on_start: OnStart | None = None,
    on_call: OnCall | None = None,
    read_picture: ReadPicture | None = None,
    listing_failures: ListingFailures | None = None,
    answer_limits: AnswerLimits = DEFAULT_LIMITS,
) -> LlmClient:
    """`timing` and `context_tokens` are those of the settings; the options of the model replace them."""
    options = config.options
    first_byte, idle, patience = options.first_byte_seconds, options.idle_seconds, options.patience_seconds
    return LlmClient(
        base_url=config.base_url,
        api_key=config.api_key.get_secret_value(),
        model=config.model_name,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        outbound=outbound,
        context_tokens=options.context_tokens or context_tokens,
        first_byte_seconds=first_byte or timing.first_byte,
        idle_seconds=idle or timing.idle,
        patience_seconds=timing.patience if patience is None else patience,
        backoff_seconds=timing.backoff,
        headers=options.headers,
        extra_body=options.body,
        facts=facts if options.sees is None else {**facts, "sees": options.sees},
        on_learnt=on_learnt,
        read_picture=read_picture,
        listing_failures=listing_failures,
        answer_limits=answer_limits,
        on_start=on_start,
        on_call=on_call,
    )


class ModelTester:
    """Tries the configured model or another one, within the outbound policy and a time limit for each part."""

    def __init__(
        self, config: ConfigService, outbound: Outbound, *, part_seconds: float, context_tokens: int | None
    ) -> None:
        self._config = config
        self._outbound = outbound
        self._part_seconds = part_seconds
        self._context_tokens = context_tokens

    async def test(self, request: LlmTestRequest) -> LlmTestResult:
        """Try all parts. Raises OutboundRefusedError, InvalidError and UnavailableError."""
        config = await self._config.llm_for_test(request)
        async with open_trial(
            config,
            outbound=self._outbound,
            part_seconds=self._part_seconds,
            context_tokens=self._context_tokens,
            window_tokens=request.window_tokens,
            facts=await self._config.model_facts(config.identity),
        ) as trial:
            results = [await trial.try_part(part) for part in PARTS]
        return LlmTestResult(
            base_url=config.base_url,
            model_name=config.model_name,
            usable=is_usable(results),
            parts=[LlmTestPart(**vars(result)) for result in results],
        )


@asynccontextmanager
async def open_trial(
    config: LlmConfig,
    *,
    outbound: Outbound,
    part_seconds: float,
    context_tokens: int | None,
    window_tokens: int,
    facts: Mapping[str, Any],
) -> AsyncIterator[Trial]:
    """A trial that waits for no trouble of the server. What it learns about the model is not stored."""
    options = replace(config.options, first_byte_seconds=None, idle_seconds=None, patience_seconds=0.0)
    async with build_client(
        replace(config, options=options),
        outbound=outbound,
        timing=Timing(first_byte=part_seconds, idle=part_seconds),
        context_tokens=context_tokens,
        facts=facts,
    ) as llm:
        yield Trial(llm, part_seconds=part_seconds, window_tokens=window_tokens)

"""`moorage llm test`: try the configured model, or another one, and say for each part whether it works."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from moorage_api.agent.trial import PARTS, PartResult, Trial, is_usable
from moorage_api.config.client import open_trial
from moorage_api.config.options import LlmTestRequest
from moorage_api.config.schemas import DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE
from moorage_api.config.service import LlmConfig
from moorage_api.database import create_database, create_engine
from moorage_api.errors import DomainError
from moorage_api.settings import DEFAULT_LLM_BASE_URL, Settings
from moorage_api.wiring.resources import outbound_of, sealing_of
from moorage_api.wiring.services import build_config
from moorage_local.data.credentials import Credentials
from moorage_local.data.directory import DataDirectory
from moorage_local.errors import StartError
from moorage_local.operate import find_database_url
from moorage_local.options import Options, invalid_environment

UNUSED: Mapping[str, str] = {
    "redis_url": "redis://localhost",
    "s3_endpoint": "localhost",
    "s3_access_key": "unused",
    "s3_secret_key": "unused",
    "signing_key_file": "unused",
    "signing_key_id": "unused",
}
"""Settings that every process needs and that a test of a model does not use."""

UNUSED_SECRET = "unused " * 5
NO_MODEL = (
    "No model is configured: store one with POST /api/app-config/llm, give --base-url and --model, or set "
    "MOORAGE_LLM_BASE_URL, MOORAGE_LLM_MODEL and MOORAGE_LLM_API_KEY"
)

WORDS = {"works": "works", "does_not_work": "DOES NOT WORK", "not_tried": "not tried"}


@dataclass(frozen=True)
class Choice:
    """What the person asked for. None stands for the configuration."""

    base_url: str | None = None
    model_name: str | None = None
    part_seconds: float | None = None
    window_tokens: int | None = None
    as_json: bool = False

    def to_request(self, *, api_key: str) -> LlmTestRequest:
        """Raises StartError. The key of the environment belongs to a `base_url` that is given with it."""
        given: dict[str, Any] = {"base_url": self.base_url, "model_name": self.model_name}
        given["window_tokens"] = self.window_tokens
        if self.base_url:
            given["api_key"] = api_key or None
        try:
            return LlmTestRequest.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            problems = [f"{item['loc'][0]}: {item['msg']}" for item in error.errors()]
            raise StartError("; ".join(problems).replace("Value error, ", "")) from None


async def try_model(choice: Choice) -> int:
    """Print the result of each part when it is known. Returns 1 if a plan or a tool call does not work."""
    options = Options.from_environment()
    has_database = has_known_database(options) and not (choice.base_url and choice.model_name)
    settings = settings_for_test(options, has_database=has_database)
    request = choice.to_request(api_key=settings.llm_api_key.get_secret_value())
    try:
        config, facts = await read_config(settings, request, has_database=has_database)
    except DomainError as error:
        raise StartError(str(error)) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise StartError(
            f"The database does not answer: {error}. Start it with `moorage up`, or give --base-url and --model"
        ) from error
    if not config.is_complete:
        raise StartError(NO_MODEL)
    async with open_trial(
        config,
        outbound=outbound_of(settings),
        part_seconds=choice.part_seconds or settings.llm_test_seconds,
        context_tokens=settings.llm_context_tokens,
        window_tokens=request.window_tokens,
        facts=facts,
    ) as trial:
        results = await _print_parts(trial, config, as_json=choice.as_json)
    return 0 if is_usable(results) else 1


async def _print_parts(trial: Trial, config: LlmConfig, *, as_json: bool) -> list[PartResult]:
    results: list[PartResult] = []
    if not as_json:
        print(f"Testing {config.model_name} at {config.base_url}", flush=True)
    for part in PARTS:
        if not as_json:
            print(f"  {part.replace('_', ' '):<10} ", end="", flush=True)
        result = await trial.try_part(part)
        results.append(result)
        if not as_json:
            print(f"{WORDS[result.outcome]:<14} {result.seconds:5.1f} s  {result.message}", flush=True)
    if as_json:
        place = {"base_url": config.base_url, "model_name": config.model_name, "usable": is_usable(results)}
        print(json.dumps(place | {"parts": [vars(result) for result in results]}, indent=2))
    else:
        print("The agent can use this model." if is_usable(results) else "The agent cannot use this model.")
    return results


def has_known_database(options: Options) -> bool:
    return options.database_url is not None or directory_of(options).secrets.exists()


def directory_of(options: Options) -> DataDirectory:
    return DataDirectory(options.data_dir.expanduser().absolute())


def settings_for_test(options: Options, *, has_database: bool) -> Settings:
    """The settings of the environment, with the database and the secrets of the data directory. Raises StartError."""
    known: dict[str, Any] = {name: text for name, text in UNUSED.items() if variable_of(name) not in os.environ}
    if has_database:
        known |= {"database_url": find_database_url(options), "jwt_secret": options.jwt_secret}
        secrets = directory_of(options).secrets
        if options.jwt_secret is None and options.database_url is None:
            known["jwt_secret"] = Credentials.load(secrets).jwt_secret
        elif options.jwt_secret is None:
            if variable_of("config_key") not in os.environ:
                raise StartError("Set MOORAGE_JWT_SECRET or MOORAGE_CONFIG_KEY of the api: they decrypt the stored key")
            known["jwt_secret"] = UNUSED_SECRET
    else:
        known |= {"database_url": "postgresql+asyncpg://unused", "jwt_secret": UNUSED_SECRET}
    try:
        return Settings(**known)
    except ValidationError as error:
        raise invalid_environment(error) from None


def variable_of(setting: str) -> str:
    return f"MOORAGE_{setting.upper()}"


async def read_config(
    settings: Settings, request: LlmTestRequest, *, has_database: bool
) -> tuple[LlmConfig, Mapping[str, Any]]:
    """The model to try, and what is known of it. Without a database: the request, and then the settings."""
    if not has_database:
        base_url = request.base_url or settings.llm_base_url
        config = LlmConfig(
            base_url=base_url,
            api_key=settings.llm_api_key,
            model_name=request.model_name or settings.llm_model,
            temperature=DEFAULT_TEMPERATURE,
            max_tokens=DEFAULT_MAX_TOKENS,
            needs_key=base_url == DEFAULT_LLM_BASE_URL,
        )
        return config, {}
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1)
    try:
        service = build_config(
            settings, create_database(engine), sealing=sealing_of(settings), outbound=outbound_of(settings)
        )
        config = await service.llm_for_test(request)
        return config, await service.model_facts(config.identity)
    finally:
        await engine.dispose()

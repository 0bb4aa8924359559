"""Platform-wide configuration: the values that an admin has stored, else the defaults from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import SecretStr

from moorage_api.config.options import (
    LlmOptions,
    LlmOptionsRead,
    LlmOptionsUpdate,
    LlmTestRequest,
    change_options,
    open_options,
    select_options,
    to_options_read,
)
from moorage_api.config.repository import ConfigRepository
from moorage_api.config.schemas import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    AgentConfig,
    LlmConfigRead,
    LlmConfigUpdate,
)
from moorage_api.config.sealing import Sealing
from moorage_api.database import Database
from moorage_api.errors import ConflictError, OutboundRefusedError, UnavailableError
from moorage_api.outbound import Outbound
from moorage_api.outbound.addresses import Target

SkillPolicyMode = Literal["off", "enforce_confirmation"]
LlmKeyState = Literal["available", "missing", "unreadable"]

KEY_UNREADABLE = "The stored API key of the model was encrypted with another MOORAGE_CONFIG_KEY; store the key again"
HEADERS_UNREADABLE = (
    "The stored headers of the model were encrypted with another MOORAGE_CONFIG_KEY; store them again with "
    "POST /api/app-config/llm/options"
)


@dataclass(frozen=True)
class LlmDefaults:
    """From the settings; used until an admin stores a configuration."""

    base_url: str
    model_name: str
    api_key: SecretStr
    keyed_base_url: str = ""
    """The server of a new installation. It needs a key, so without one nobody has chosen a model yet."""


@dataclass(frozen=True)
class LlmConfig:
    """What the runner needs to reach a model."""

    base_url: str
    api_key: SecretStr
    model_name: str
    temperature: float | None
    """None to leave it out of requests."""
    max_tokens: int
    needs_key: bool
    """Whether it is the server of a new installation, which is of no use without a key."""
    options: LlmOptions = field(default_factory=LlmOptions)

    @property
    def identity(self) -> str:
        """Name of the model and its server, by which facts about it are stored."""
        return _identify(self.base_url, self.model_name)

    @property
    def is_complete(self) -> bool:
        """False if nobody has chosen a model: the default server needs a key, and no key is configured."""
        has_secret = bool(self.api_key.get_secret_value() or self.options.headers)
        return has_secret or not self.needs_key


class ConfigService:
    def __init__(self, db: Database, defaults: LlmDefaults, sealing: Sealing, outbound: Outbound) -> None:
        self._db = db
        self._defaults = defaults
        self._sealing = sealing
        self._outbound = outbound

    async def llm(self) -> LlmConfig:
        """Read the configuration with the key. Raises UnavailableError if the stored key cannot be decrypted.

        The key of the settings is not used instead then, because it could be sent to a host that must not have it.
        """
        async with self._db() as tx:
            repository = ConfigRepository(tx)
            stored, stored_options = await repository.read("llm"), await repository.read("llm_options")
        read = self._to_llm_config_read(stored)
        selected = select_options(stored_options, base_url=read.base_url, model_name=read.model_name)
        return self._open_config(read, selected, api_key=self._read_key(stored))

    async def llm_for_test(self, request: LlmTestRequest) -> LlmConfig:
        """The configuration with the changes of the request, which are not stored.

        The stored key and the stored headers are used only for the configured base URL. Raises OutboundRefusedError.
        """
        async with self._db() as tx:
            repository = ConfigRepository(tx)
            stored, stored_options = await repository.read("llm"), await repository.read("llm_options")
        before = self._to_llm_config_read(stored)
        given = request.model_dump(include={*LlmConfigRead.model_fields}, exclude_none=True)
        read = before.model_copy(update=given)
        await self._outbound.check("llm", read.base_url)
        key = request.api_key or SecretStr("")
        if not key.get_secret_value() and read.base_url == before.base_url:
            key = self._read_key(stored)
        selected = select_options(stored_options, base_url=read.base_url, model_name=read.model_name)
        return self._open_config(read, change_options(selected, request, seal=self._seal_text), api_key=key)

    async def llm_key(self) -> LlmKeyState:
        """Whether runs have a key: "available", "missing", or "unreadable" (stored, but cannot be decrypted)."""
        try:
            config = await self.llm()
        except UnavailableError:
            return "unreadable"
        return "available" if config.api_key.get_secret_value() else "missing"

    async def update_llm(self, update: LlmConfigUpdate) -> LlmConfigRead:
        """Store the configuration. A new base URL removes the stored key, so it is never sent to another host.

        Raises OutboundRefusedError if the platform must not connect to the base URL.
        """
        await self._outbound.check("llm", update.base_url)
        stored = await self._read("llm")
        before = stored.get("base_url", self._defaults.base_url)
        value = update.model_dump(exclude={"api_key"})
        if update.api_key and (key := update.api_key.get_secret_value()):
            value["sealed_key"] = self._seal(key)
        elif before == update.base_url:
            value |= {name: stored[name] for name in ("sealed_key", "api_key") if name in stored}
        await self._write("llm", self._without_plain_key(value))
        return self._to_llm_config_read(value)

    async def options(self) -> LlmOptionsRead:
        """The options that apply to the configured model. It works even if the headers cannot be decrypted."""
        async with self._db() as tx:
            repository = ConfigRepository(tx)
            read = self._to_llm_config_read(await repository.read("llm"))
            stored = await repository.read("llm_options")
            facts = await repository.read("model_facts")
        place = {"base_url": read.base_url, "model_name": read.model_name}
        learnt = facts.get(_identify(**place)) or {}
        return to_options_read(select_options(stored, **place), **place, learnt=learnt)

    async def update_options(self, update: LlmOptionsUpdate) -> LlmOptionsRead:
        """Change the options of the configured model. Raises ConflictError if `update` is for another model.

        Options of another model, if there were any, are replaced.
        """
        async with self._db.begin() as tx:
            repository = ConfigRepository(tx)
            read = self._to_llm_config_read(await repository.read("llm"))
            place = {"base_url": read.base_url, "model_name": read.model_name}
            for name, value in place.items():
                if (expected := getattr(update, name)) not in (None, value):
                    raise ConflictError(
                        f"The configured `{name}` is {value!r} and not {expected!r}: read the options again"
                    )
            before = select_options(await repository.read_for_update("llm_options"), **place)
            changed = change_options(before, update, seal=self._seal_text)
            await repository.write("llm_options", changed | place)
            if update.forget_learnt:
                await repository.forget_model_facts(_identify(**place))
            learnt = (await repository.read("model_facts")).get(_identify(**place)) or {}
        return to_options_read(changed, **place, learnt=learnt)

    async def read_llm(self) -> LlmConfigRead:
        """Read the configuration without the key. It works even if the stored key cannot be decrypted."""
        return self._to_llm_config_read(await self._read("llm"))

    async def seal_stored_key(self) -> None:
        """Encrypt a key that an older version stored in plain text. A key that is stored meanwhile is not changed."""
        stored = await self._read("llm")
        sealed = self._without_plain_key(stored)
        if sealed == stored:
            return
        async with self._db.begin() as tx:
            await ConfigRepository(tx).replace("llm", stored, sealed)

    def _to_llm_config_read(self, stored: Mapping[str, Any]) -> LlmConfigRead:
        return LlmConfigRead(
            base_url=stored.get("base_url", self._defaults.base_url),
            model_name=stored.get("model_name", self._defaults.model_name),
            temperature=stored.get("temperature", DEFAULT_TEMPERATURE),
            max_tokens=stored.get("max_tokens", DEFAULT_MAX_TOKENS),
        )

    def _read_key(self, stored: Mapping[str, Any]) -> SecretStr:
        if sealed := stored.get("sealed_key"):
            try:
                return SecretStr(self._sealing.open(sealed.encode())["api_key"])
            except UnavailableError:
                raise UnavailableError(KEY_UNREADABLE) from None
        plain = stored.get("api_key")
        return SecretStr(plain) if plain else self._default_key(stored)

    def _default_key(self, stored: Mapping[str, Any]) -> SecretStr:
        """The key of the settings. It is only used for the server of the settings, never for another host."""
        base_url = stored.get("base_url", self._defaults.base_url)
        return self._defaults.api_key if is_same_server(base_url, self._defaults.base_url) else SecretStr("")

    def _open_config(self, read: LlmConfigRead, selected: Mapping[str, Any], *, api_key: SecretStr) -> LlmConfig:
        options = open_options(selected, unseal=self._unseal_text)
        temperature = read.temperature if options.send_temperature else None
        return LlmConfig(
            base_url=read.base_url,
            api_key=api_key,
            model_name=read.model_name,
            temperature=temperature,
            max_tokens=read.max_tokens,
            options=options,
            needs_key=read.base_url == self._defaults.keyed_base_url,
        )

    def _seal_text(self, text: str) -> str:
        return self._sealing.seal({"text": text}).decode()

    def _unseal_text(self, sealed: str) -> str:
        try:
            return str(self._sealing.open(sealed.encode())["text"])
        except UnavailableError:
            raise UnavailableError(HEADERS_UNREADABLE) from None

    def _without_plain_key(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the plain `api_key`, which older versions stored, by an encrypted `sealed_key`."""
        value = dict(stored)
        if key := value.pop("api_key", ""):
            value["sealed_key"] = self._seal(key)
        return value

    def _seal(self, key: str) -> str:
        return self._sealing.seal({"api_key": key}).decode()

    async def agent(self) -> AgentConfig:
        return AgentConfig.model_validate(await self._read("agent"))

    async def update_agent(self, config: AgentConfig) -> AgentConfig:
        await self._write("agent", config.model_dump())
        return config

    async def model_facts(self, model: str) -> dict[str, Any]:
        """What runs have learnt about a model of one server, such as parameters that it refuses."""
        return dict((await self._read("model_facts")).get(model) or {})

    async def add_model_facts(self, model: str, facts: Mapping[str, Any]) -> None:
        """Store new facts. Runners that learn at the same time do not overwrite each other's facts."""
        async with self._db.begin() as tx:
            await ConfigRepository(tx).add_model_facts(model, facts)

    async def skill_policy(self) -> SkillPolicyMode:
        """Whether tools of high-risk skills need the user's confirmation before they run."""
        stored = await self._read("skill_policy")
        return "enforce_confirmation" if stored.get("mode") == "enforce_confirmation" else "off"

    async def update_skill_policy(self, mode: SkillPolicyMode) -> None:
        await self._write("skill_policy", {"mode": mode})

    async def _read(self, name: str) -> dict[str, Any]:
        async with self._db() as tx:
            return await ConfigRepository(tx).read(name)

    async def _write(self, name: str, value: dict[str, Any]) -> None:
        async with self._db.begin() as tx:
            await ConfigRepository(tx).write(name, value)


def _identify(base_url: str, model_name: str) -> str:
    return f"{model_name} at {base_url}"


def is_same_server(base_url: str, other: str) -> bool:
    """Whether both URLs have the same scheme, host and port."""
    try:
        return Target.of(base_url) == Target.of(other)
    except OutboundRefusedError:
        return base_url == other

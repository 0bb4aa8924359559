"""Build every service, once for each process, from the open resources."""

from __future__ import annotations

from pathlib import Path

from moorage_api.administration.service import UserRemoval
from moorage_api.config.client import ModelTester
from moorage_api.config.sealing import Sealing
from moorage_api.config.service import ConfigService, LlmDefaults
from moorage_api.database import Database
from moorage_api.files.service import FileService
from moorage_api.http.access import AccessSettings
from moorage_api.http.provided import Services
from moorage_api.outbound import Outbound
from moorage_api.sandboxes.reader import SandboxReader
from moorage_api.sandboxes.upkeep import Upkeep
from moorage_api.sessions.presenter import Pictures, Presenter
from moorage_api.sessions.service import SessionService
from moorage_api.sessions.streams import EventStreams
from moorage_api.settings import DEFAULT_LLM_BASE_URL, Settings
from moorage_api.skill_runs.run import SkillRuns
from moorage_api.skills.pins import SessionSkills
from moorage_api.skills.service import SkillService, Sources
from moorage_api.skills.store import SkillArchives
from moorage_api.skills.upkeep import SkillUpkeep
from moorage_api.status.minio import OwnStore, StorePlace
from moorage_api.status.service import PlatformStatus, platform_probes
from moorage_api.tools.a2a.service import A2aService
from moorage_api.tools.mcp.service import McpService
from moorage_api.usage.service import UsageService
from moorage_api.users.identities import IdentityService
from moorage_api.users.management import AccountManagement
from moorage_api.users.request_limits import RequestLimits
from moorage_api.users.service import UserService
from moorage_api.wechat.client import WechatClient
from moorage_api.wechat.login import WechatLogin
from moorage_api.wechat.login_states import LoginStates
from moorage_api.wiring.resources import Resources


def build_services(resources: Resources) -> Services:
    """What the routes and the runner work with; the api and the runner build the same."""
    settings = resources.settings
    config = build_config(settings, resources.db, sealing=resources.sealing, outbound=resources.outbound)
    files = FileService(resources.db, resources.blobs, limit_bytes=settings.upload_limit_bytes)
    sessions = SessionService(resources.db, resources.hub, resources.redis, resources.sandboxes, resources.blobs)
    accounts = AccountManagement(resources.db, resources.hub)
    presenter = Presenter(settings.jwt_secret.get_secret_value())
    return Services(
        [
            resources.db,
            resources.hub,
            resources.leases,
            AccessSettings(allowed_origins=settings.cors_origins, open_config=settings.open_config),
            RequestLimits(resources.windows, resources.tokens, trusted_proxies=resources.trusted_proxies),
            UserService(
                resources.db,
                resources.passwords,
                resources.tokens,
                resources.now,
                refresh_single_use=settings.refresh_single_use,
            ),
            accounts,
            UserRemoval(accounts, sessions, files),
            build_wechat_login(resources),
            config,
            ModelTester(
                config,
                resources.outbound,
                part_seconds=settings.llm_test_seconds,
                context_tokens=settings.llm_context_tokens,
            ),
            UsageService(resources.db, resources.now),
            files,
            sessions,
            presenter,
            Pictures(presenter, resources.blobs),
            EventStreams(
                resources.hub,
                resources.db,
                heartbeat_seconds=settings.stream_heartbeat_seconds,
                max_seconds=settings.stream_max_seconds,
            ),
            SandboxReader(resources.sandboxes, resources.signer),
            Upkeep(resources.db, resources.hub, resources.sandboxes, idle_seconds=settings.sandbox_idle_seconds),
            McpService(resources.db, resources.sealing, resources.mcp, resources.outbound),
            A2aService(resources.db, resources.outbound),
            *build_skill_services(resources, config),
            *build_status_services(resources),
        ]
    )


def build_config(settings: Settings, db: Database, *, sealing: Sealing, outbound: Outbound) -> ConfigService:
    defaults = LlmDefaults(
        base_url=settings.llm_base_url,
        model_name=settings.llm_model,
        api_key=settings.llm_api_key,
        keyed_base_url=DEFAULT_LLM_BASE_URL,
    )
    return ConfigService(db, defaults, sealing, outbound)


def build_skill_services(resources: Resources, config: ConfigService) -> list[object]:
    settings = resources.settings
    archives = SkillArchives(resources.blobs, settings.skills_root_dir, limit_bytes=settings.skills_cache_bytes)
    sources = Sources(
        local_roots=tuple(Path(root) for root in settings.skills_local_roots.split(":") if root),
        github_archive_url=settings.skills_github_archive_url,
        outbound=resources.outbound,
    )
    return [
        SkillService(resources.db, archives, sources, resources.now),
        SkillUpkeep(resources.db, resources.blobs, resources.now),
        SkillRuns(SessionSkills(resources.db, resources.now), archives, config),
    ]


def build_status_services(resources: Resources) -> list[object]:
    settings = resources.settings
    cluster = resources.sandboxes if settings.sandboxes == "cluster" else None
    return [
        PlatformStatus(platform_probes(resources.db, resources.redis, resources.blobs, cluster)),
        OwnStore(resources.blobs, StorePlace(endpoint=settings.s3_endpoint, secure=settings.s3_secure)),
    ]


def build_wechat_login(resources: Resources) -> WechatLogin:
    settings = resources.settings
    secret = settings.wechat_app_secret.get_secret_value()
    needed = (settings.wechat_app_id, secret, settings.wechat_callback_url, settings.wechat_frontend_url)
    return WechatLogin(
        is_configured=all(needed),
        callback_url=settings.wechat_callback_url,
        frontend_url=settings.wechat_frontend_url,
        states=LoginStates(resources.redis, settings.jwt_secret.get_secret_value(), resources.now),
        accounts=IdentityService(resources.db, resources.tokens, resources.now),
        client=WechatClient(
            app_id=settings.wechat_app_id,
            secret=secret,
            open_url=settings.wechat_open_url,
            api_url=settings.wechat_api_url,
        ),
    )

"""The connections and shared objects of the api and the runner: built from settings, and closed, in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.maint_notifications import MaintNotificationsConfig
from sqlalchemy.ext.asyncio import AsyncEngine

from moorage_api.clock import Clock, utc_now
from moorage_api.config.sealing import Sealing
from moorage_api.database import Database, create_database, create_engine
from moorage_api.events.hub import Hub
from moorage_api.limits.addresses import Network, parse_networks
from moorage_api.limits.leases import ConnectionKind, Leases
from moorage_api.limits.request_windows import Bucket, Windows
from moorage_api.migrations import tables as models  # noqa: F401 - a foreign key is resolved once every table is known
from moorage_api.objects.store import BlobStore, MinioStore, StoreAddress
from moorage_api.outbound import PURPOSES, Outbound
from moorage_api.sandboxes.local import LocalSandboxes
from moorage_api.sandboxes.provider import Sandboxes
from moorage_api.settings import Settings
from moorage_api.tools.mcp.pool import McpConnections
from moorage_api.tools.mcp.server import McpRunnerAddress
from moorage_api.users.passwords import Passwords
from moorage_api.users.tokens import Tokens
from moorage_sandbox.client import TokenSigner

LOOPBACK = ("localhost", "127.0.0.1", "::1")
LIMITS_CONNECTIONS = 32
"""Most Redis connections for limits, which every request needs. If none is free, a request waits for one."""

CHECK_POOLED = MaintNotificationsConfig(enabled=False)
"""With these notifications, which are on by default, redis-py hands out a pooled connection that Redis has closed.

Without them it sees the end of the stream, with no round trip, and connects again. So no command is sent twice.
"""


@dataclass
class Resources:
    settings: Settings
    engine: AsyncEngine
    db: Database
    redis: Redis
    blobs: BlobStore
    hub: Hub
    sandboxes: Sandboxes
    signer: TokenSigner
    passwords: Passwords
    tokens: Tokens
    outbound: Outbound
    sealing: Sealing
    mcp: McpConnections
    windows: Windows
    leases: Leases
    trusted_proxies: tuple[Network, ...]
    now: Clock = utc_now


def outbound_of(settings: Settings) -> Outbound:
    """Build the outbound policy. Configured URLs must never reach PostgreSQL, Redis and S3 on this machine."""
    urls = (
        settings.database_url.get_secret_value(),
        settings.redis_url.get_secret_value(),
        f"s3://{settings.s3_endpoint}",
    )
    services = [urlsplit(url) for url in urls]
    ports = {one.port for one in services if one.port and one.hostname in LOOPBACK}
    return Outbound(
        private=frozenset(purpose for purpose in PURPOSES if purpose in settings.outbound_private.split(",")),
        closed_ports=frozenset({*ports, *settings.outbound_closed_ports}),
    )


def redis_of(settings: Settings) -> Redis:
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=2,
        socket_timeout=5,
        health_check_interval=15,
        maint_notifications_config=CHECK_POOLED,
    )


def limits_redis_of(settings: Settings) -> Redis:
    pool = BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=LIMITS_CONNECTIONS,
        timeout=2,
        socket_connect_timeout=2,
        socket_timeout=2,
        maint_notifications_config=CHECK_POOLED,
    )
    return Redis.from_pool(pool)


def blobs_of(settings: Settings) -> MinioStore:
    address = StoreAddress(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        region=settings.s3_region,
        is_secure=settings.s3_secure,
    )
    return MinioStore.connect(address, bucket=settings.s3_bucket, public_url=settings.s3_public_endpoint)


def sealing_of(settings: Settings) -> Sealing:
    """With `config_key`, values that were encrypted earlier with the derived key can still be decrypted."""
    derived = settings.jwt_secret.get_secret_value()
    return Sealing([settings.config_key.get_secret_value(), derived] if settings.config_key else [derived])


def tokens_of(settings: Settings) -> Tokens:
    return Tokens(
        settings.jwt_secret.get_secret_value(),
        access_seconds=settings.access_token_seconds,
        refresh_seconds=settings.refresh_token_seconds,
    )


def commands_of(settings: Settings) -> McpRunnerAddress:
    beside_host = f"unix:{settings.sandbox_host_socket.with_name('commands.sock')}"
    return McpRunnerAddress(settings.mcp_commands_url or beside_host, settings.mcp_commands_token.get_secret_value())


def windows_of(settings: Settings, redis: Redis) -> Windows:
    limits = {
        Bucket.READS: settings.limit_reads,
        Bucket.WRITES: settings.limit_writes,
        Bucket.CHATS: settings.limit_chats,
        Bucket.PICTURES: settings.limit_pictures,
        Bucket.MODEL_TESTS: settings.limit_model_tests,
    }
    return Windows(redis, limits, window_seconds=settings.limit_window_seconds)


def leases_of(settings: Settings, redis: Redis) -> Leases:
    limits = {ConnectionKind.STREAM: settings.limit_streams, ConnectionKind.SCREEN: settings.limit_screens}
    return Leases(redis, limits, lease_seconds=settings.connection_lease_seconds)


@asynccontextmanager
async def open_sandboxes(settings: Settings) -> AsyncIterator[Sandboxes]:
    """Open the configured sandboxes. Missing credentials raise here; an unreachable cluster fails later requests."""
    if settings.sandboxes == "cluster":
        from moorage_api.sandboxes.cluster.cluster_sandboxes import ClusterSandboxes

        async with ClusterSandboxes.open(
            namespace=settings.cluster_namespace,
            kubeconfig=settings.kubeconfig,
            start_timeout_seconds=settings.sandbox_start_seconds,
        ) as cluster:
            yield cluster
        return
    local = LocalSandboxes(settings.sandbox_host_socket)
    try:
        yield local
    finally:
        await local.close()


@asynccontextmanager
async def open_resources(settings: Settings, *, issuer: str) -> AsyncIterator[Resources]:
    """Build all resources. Connections are opened at first use, so an unreachable server fails requests, not the start.

    `issuer` signs sandbox tokens: "api" or "runner".
    """
    async with AsyncExitStack() as closing:
        engine = create_engine(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)
        closing.push_async_callback(engine.dispose)
        db = create_database(engine)
        closing.push_async_callback(db.close)
        redis = redis_of(settings)
        closing.push_async_callback(redis.aclose)
        limits_redis = limits_redis_of(settings)
        closing.push_async_callback(limits_redis.aclose)
        blobs = blobs_of(settings)
        closing.push_async_callback(blobs.close)
        passwords = Passwords(concurrency=settings.hashing_concurrency)
        closing.callback(passwords.close)
        outbound = outbound_of(settings)
        mcp = McpConnections(outbound=outbound, commands=commands_of(settings))
        closing.push_async_callback(mcp.close)
        yield Resources(
            settings=settings,
            engine=engine,
            db=db,
            redis=redis,
            blobs=blobs,
            signer=TokenSigner.from_file(settings.signing_key_file, key_id=settings.signing_key_id, issuer=issuer),
            passwords=passwords,
            tokens=tokens_of(settings),
            outbound=outbound,
            sealing=sealing_of(settings),
            mcp=mcp,
            windows=windows_of(settings, limits_redis),
            trusted_proxies=parse_networks(settings.trusted_proxies),
            hub=await closing.enter_async_context(Hub(redis, db, poll_seconds=settings.stream_poll_seconds)),
            leases=await closing.enter_async_context(leases_of(settings, limits_redis)),
            sandboxes=await closing.enter_async_context(open_sandboxes(settings)),
        )

"""Client of the object store. Objects are read and written as streams, so memory use does not depend on their size."""

from __future__ import annotations

import asyncio
import io
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from moorage_api.errors import InvalidError, NotFoundError, UnavailableError

T = TypeVar("T")

CHUNK_BYTES = 1024 * 1024
PART_BYTES = 8 * 1024 * 1024
"""Size of the parts of an upload. One upload keeps one or two parts in memory."""

QUEUED_CHUNKS = 16
THREADS = 16
"""Number of threads for the store only, so that a slow store does not delay other blocking work."""

NOT_FOUND_CODES = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion"})

BAD_NAME_CODES = frozenset({"KeyTooLongError", "InvalidObjectName", "XMinioInvalidObjectName"})
"""Error codes for an invalid key. Servers differ in the longest key, or part of a key between slashes."""


@dataclass(frozen=True)
class StoredObject:
    """An open object. `chunks` must be read to the end or closed."""

    size: int
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True)
class Uploaded:
    """`version_id` is None if the bucket keeps no versions."""

    size: int
    etag: str
    version_id: str | None


class BlobStore(Protocol):
    """Every method that needs the store raises UnavailableError if it does not answer."""

    async def put(self, key: str, data: bytes, *, content_type: str) -> None: ...

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> int:
        """Store the chunks and return their size. If `chunks` raises, nothing is stored and the error is raised."""
        ...

    async def upload(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Uploaded:
        """Like `put_stream`, but also return the etag and the version."""
        ...

    async def get(self, key: str) -> StoredObject:
        """Open an object. Raises NotFoundError."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object. Does nothing if it does not exist."""
        ...

    async def delete_prefix(self, prefix: str) -> None: ...

    async def keys(self, prefix: str, *, before: datetime) -> list[str]:
        """List the keys below `prefix` of objects that were last written before `before`, by the store's clock."""
        ...

    async def ensure_bucket(self) -> None: ...

    async def has_bucket(self) -> bool: ...

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        """Sign a link for reading the object, for the public endpoint if one is configured. Sends no request."""
        ...

    def in_bucket(self, bucket: str) -> BlobStore:
        """The same store with another bucket. The caller must not close it."""
        ...

    @property
    def bucket(self) -> str: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class StoreAddress:
    """Where an S3 server is, and who we are there. `endpoint` is host:port."""

    endpoint: str
    access_key: str
    secret_key: SecretStr
    region: str
    is_secure: bool


class MinioStore:
    def __init__(
        self,
        client: Minio,
        *,
        bucket: str,
        region: str,
        signing: Minio | None = None,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self._client = client
        self._signing = signing or client
        self._bucket = bucket
        self._region = region
        self._threads = threads or ThreadPoolExecutor(THREADS, thread_name_prefix="objects")

    @classmethod
    def connect(cls, place: StoreAddress, *, bucket: str, public_url: str | None = None) -> MinioStore:
        """Links lead to `public_url` if it is given. Connections are opened at first use."""
        pool = urllib3.PoolManager(
            maxsize=THREADS,
            timeout=urllib3.Timeout(connect=3, read=60),
            retries=urllib3.Retry(total=2, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
        )
        client = Minio(
            place.endpoint,
            access_key=place.access_key,
            secret_key=place.secret_key.get_secret_value(),
            secure=place.is_secure,
            region=place.region,  # without it, the client sends a request to find the region
            http_client=pool,
        )
        signing = public_client(place, public_url) if public_url else None
        return cls(client, bucket=bucket, region=place.region, signing=signing)

    @property
    def bucket(self) -> str:
        return self._bucket

    def in_bucket(self, bucket: str) -> MinioStore:
        return MinioStore(
            self._client, bucket=bucket, region=self._region, signing=self._signing, threads=self._threads
        )

    async def put(self, key: str, data: bytes, *, content_type: str) -> None:
        await self._run(
            lambda: self._client.put_object(
                self._bucket, key, io.BytesIO(data), length=len(data), content_type=content_type
            )
        )

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> int:
        return (await self.upload(key, chunks, content_type=content_type)).size

    async def upload(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Uploaded:
        pipe = Pipe()
        upload = asyncio.ensure_future(
            self._run(
                lambda: self._client.put_object(
                    self._bucket, key, cast(BinaryIO, pipe), length=-1, part_size=PART_BYTES, content_type=content_type
                )
            )
        )
        size = 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                while not pipe.try_put(chunk):
                    if upload.done():
                        break  # it failed; awaiting it below raises the error
                    await pipe.wait_for_room()
            pipe.end()
        except BaseException:
            pipe.abort()
            await asyncio.wait({upload})
            upload.exception()
            raise
        result = await upload
        return Uploaded(size, str(result.etag or "").strip('"'), result.version_id or None)

    async def get(self, key: str) -> StoredObject:
        response = await self._run(lambda: self._client.get_object(self._bucket, key))
        return StoredObject(int(response.headers["content-length"]), self._chunks(response))

    async def _chunks(self, response: Any) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await self._run(lambda: response.read(CHUNK_BYTES)):
                yield chunk
        finally:
            response.close()
            response.release_conn()

    async def delete(self, key: str) -> None:
        await self._run(lambda: self._client.remove_object(self._bucket, key))

    async def delete_prefix(self, prefix: str) -> None:
        def remove() -> None:
            found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            errors = list(
                self._client.remove_objects(self._bucket, (DeleteObject(str(item.object_name)) for item in found))
            )
            if errors:
                raise UnavailableError(f"Could not remove {len(errors)} objects from the store; try again later")

        await self._run(remove)

    async def keys(self, prefix: str, *, before: datetime) -> list[str]:
        def find() -> list[str]:
            found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            return [str(item.object_name) for item in found if item.last_modified < before]

        return await self._run(find)

    async def ensure_bucket(self) -> None:
        def ensure() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket, location=self._region)

        await self._run(ensure)

    async def has_bucket(self) -> bool:
        return bool(await self._run(lambda: self._client.bucket_exists(self._bucket)))

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        return self._signing.presigned_get_object(self._bucket, key, expires=timedelta(seconds=seconds))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except S3Error as error:
            if error.code in NOT_FOUND_CODES:
                raise NotFoundError("This object does not exist in the object store") from error
            if error.code in BAD_NAME_CODES:
                raise InvalidError("The object store does not accept this name; choose a shorter one") from error
            raise UnavailableError(f"The object store refused the request ({error.code}); try again later") from error
        except (MinioException, HTTPError, OSError) as error:
            raise UnavailableError("The object store is not available; try again shortly") from error


def public_client(place: StoreAddress, url: str) -> Minio:
    """Build a client that only signs links for the store's public address. It never sends a request."""
    scheme, separator, host = url.rpartition("://")
    return Minio(
        host.rstrip("/"),
        access_key=place.access_key,
        secret_key=place.secret_key.get_secret_value(),
        secure=scheme == "https" if separator else place.is_secure,
        region=place.region,
    )


class AbortedError(Exception):
    """The source of an upload failed. The SDK treats this as a read error and aborts the upload."""


class Pipe(io.RawIOBase):
    """A bounded queue of chunks from the event loop to a thread, as a file. A full queue slows the sender down."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: queue.Queue[bytes | None] = queue.Queue()
        self._rest = memoryview(b"")
        self._ended = False
        self._aborted = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._has_room = asyncio.Event()

    def try_put(self, chunk: bytes) -> bool:
        """Add the chunk to the queue. False if the queue is full."""
        if self._chunks.qsize() >= QUEUED_CHUNKS:
            self._has_room.clear()
            if self._chunks.qsize() >= QUEUED_CHUNKS:
                return False
        self._chunks.put(bytes(chunk))
        return True

    async def wait_for_room(self) -> None:
        """Wait until the queue may have room, at most 0.5 s, so that the caller can check if the upload has failed."""
        try:
            async with asyncio.timeout(0.5):
                await self._has_room.wait()
        except TimeoutError:
            return

    def end(self) -> None:
        self._chunks.put(None)

    def abort(self) -> None:
        self._aborted.set()
        self._chunks.put(None)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        while not self._rest and not self._ended:
            chunk = self._chunks.get()
            if self._aborted.is_set():
                raise AbortedError
            if self._chunks.qsize() < QUEUED_CHUNKS // 2:
                self._loop.call_soon_threadsafe(self._has_room.set)
            self._ended = chunk is None
            self._rest = memoryview(chunk or b"")
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)

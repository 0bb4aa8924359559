"""Loads a skill from a GitHub tree URL."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, unquote, urlsplit

import httpx

from moorage_api.errors import SkillRefusedError, SkillTooLargeError
from moorage_api.outbound import Outbound
from moorage_api.skills.bundles.bundle import Bundle
from moorage_api.skills.bundles.tarball import load_tarball

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
MAX_PARTS = 20
MAX_REFS = 8
"""How many ways to split the URL into ref and path are tried, because both may contain slashes."""
SPOOLED_BYTES = 4 * 1024 * 1024
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class TreeUrl:
    """`parts` are the segments after `/tree/`: a ref, which may contain slashes, and an optional path."""

    owner: str
    repository: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> TreeUrl:
        """Raises SkillRefusedError for anything but https://github.com/OWNER/REPOSITORY/tree/REF[/PATH]."""
        try:
            split = urlsplit(url)
        except ValueError:
            raise _bad_url() from None
        if split.scheme != "https" or split.netloc.lower() not in ("github.com", "www.github.com"):
            raise _bad_url()
        if split.query or split.fragment:
            raise _bad_url()
        owner, _, rest = split.path.strip("/").partition("/")
        repository, _, rest = rest.partition("/")
        kind, _, rest = rest.partition("/")
        parts = tuple(unquote(part) for part in rest.split("/"))
        if kind != "tree" or not NAME.fullmatch(owner) or not NAME.fullmatch(repository) or len(parts) > MAX_PARTS:
            raise _bad_url()
        for part in parts:
            if part in ("", ".", "..") or "/" in part or "\\" in part or not part.isprintable():
                raise _bad_url()
        return cls(owner, repository, parts)

    def possible_refs(self) -> Iterator[tuple[str, str]]:
        """Each possible split into ref and path, the longest ref first."""
        for length in range(min(len(self.parts), MAX_REFS), 0, -1):
            yield "/".join(self.parts[:length]), "/".join(self.parts[length:])

    @property
    def folder(self) -> str:
        """The name of the skill's directory, or of the repository if the whole repository is the skill."""
        return self.parts[-1] if len(self.parts) > 1 else self.repository


def _bad_url() -> SkillRefusedError:
    return SkillRefusedError(
        "bad_url",
        "A GitHub URL must have the form https://github.com/OWNER/REPOSITORY/tree/REF/PATH, without a query",
    )


async def load_github(url: str, *, base_url: str, outbound: Outbound) -> Bundle:
    """Download the repository's tarball from `base_url` and read the skill from it.

    Raises SkillRefusedError, SkillTooLargeError and OutboundRefusedError.
    """
    tree = TreeUrl.parse(url)
    base_url = base_url.rstrip("/")
    is_ref_known = False
    async with outbound.client("skills", base_url, timeout=TIMEOUT_SECONDS) as client:
        for ref, path in tree.possible_refs():
            address = f"{base_url}/{tree.owner}/{tree.repository}/tar.gz/{quote(ref, safe='/')}"
            with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as file:
                if not await _download(client, address, file):
                    continue
                is_ref_known = True
                file.seek(0)
                folder = tree.repository if not path else tree.folder
                bundle = await asyncio.to_thread(load_tarball, file, folder=folder, path=path)
            if bundle is not None:
                return bundle
    if is_ref_known:
        raise SkillRefusedError("not_found", "The repository does not have the directory in the URL; check its path")
    raise SkillRefusedError(
        "ref_not_found",
        f"There is no public repository {tree.owner}/{tree.repository}, or it does not have the branch, tag or commit "
        "in the URL",
    )


async def _download(client: httpx.AsyncClient, address: str, file: IO[bytes]) -> bool:
    """Write the response to `file`. False for a 404."""
    try:
        async with client.stream("GET", address) as response:
            if response.status_code == 404:
                return False
            if response.status_code != 200:
                status = response.status_code
                raise SkillRefusedError("unreachable", f"The server of the skill answered with HTTP status {status}")
            async for chunk in response.aiter_raw():
                file.write(chunk)
    except httpx.ReadError as error:
        raise SkillTooLargeError("download", f"The repository cannot be downloaded: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        kind = type(error).__name__
        raise SkillRefusedError("unreachable", f"The server of the skill does not answer ({kind})") from error
    return True

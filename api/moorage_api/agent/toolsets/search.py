"""Web search with a SearXNG instance if one is configured, otherwise with the `ddgs` package."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import httpx

from moorage_api.agent.ports import Function, ToolCall, ToolResult
from moorage_api.agent.toolsets.function_schema import function, text

TIMEOUT_SECONDS = 20.0
MAX_SNIPPET_CHARS = 600

RANGES = {
    "all": (None, None),
    "past_day": ("d", "day"),
    "past_week": ("w", "week"),
    "past_month": ("m", "month"),
    "past_year": ("y", "year"),
}
"""For each `date_range`, the value that ddgs expects and the value that SearXNG expects."""

SEARCH = function(
    "search_web",
    "Search the web. The result has titles, addresses and snippets; open an address in the browser to read more.",
    {"query": text("Three to seven key words")},
    {"date_range": text("How old results may be", choices=tuple(RANGES))},
    read_only=True,
)


class SearchToolset:
    def __init__(self, *, max_results: int, searxng_url: str | None = None) -> None:
        self._max_results = max_results
        self._searxng_url = searxng_url

    @property
    def name(self) -> Literal["search"]:
        return "search"

    def functions(self) -> Sequence[Function]:
        return [SEARCH]

    async def call(self, call: ToolCall) -> ToolResult:
        query = str(call.args["query"])
        ddgs_range, searxng_range = RANGES[call.args.get("date_range", "all")]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if self._searxng_url is not None:
                    found = await self._ask_searxng(self._searxng_url, query, searxng_range)
                else:
                    found = await asyncio.to_thread(self._ask_ddgs, query, ddgs_range)
        except Exception as error:  # noqa: BLE001 - the search clients raise many undocumented exceptions
            return _failed_result(str(error)[:300] or "the search engine did not answer in time")
        results = [_to_result(item) for item in found[: self._max_results]]
        text_for_model = "\n\n".join(f"{item['title']}\n{item['url']}\n{item['snippet']}" for item in results)
        return ToolResult("succeeded", text_for_model or "Nothing was found.", {"results": results})

    def _ask_ddgs(self, query: str, time_limit: str | None) -> list[dict[str, Any]]:
        from ddgs import DDGS  # imported here because it is slow to import and not needed with SearXNG
        from ddgs.exceptions import DDGSException

        try:
            return list(DDGS(timeout=10).text(query, timelimit=time_limit, max_results=self._max_results))
        except DDGSException as error:
            if "no results" in str(error).lower():
                return []
            raise

    async def _ask_searxng(self, url: str, query: str, time_range: str | None) -> list[dict[str, Any]]:
        params = {"q": query, "format": "json"} | ({"time_range": time_range} if time_range else {})
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            response = await client.get(f"{url.rstrip('/')}/search", params=params)
            response.raise_for_status()
            found = response.json().get("results") or []
        return [item for item in found if isinstance(item, dict)]


def _to_result(item: dict[str, Any]) -> dict[str, str]:
    snippet = " ".join(str(item.get("body") or item.get("content") or "").split())
    return {
        "title": str(item.get("title") or ""),
        "url": str(item.get("href") or item.get("url") or ""),
        "snippet": snippet[:MAX_SNIPPET_CHARS],
    }


def _failed_result(reason: str) -> ToolResult:
    text = f"The search failed: {reason}"
    return ToolResult("failed", text, {"results": [], "result": text})

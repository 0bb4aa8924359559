"""Loggers of libraries that would write more than we want in our log."""

from __future__ import annotations

CHATTY_LOGGERS = ("httpx", "httpx2", "ddgs", "primp", "a2a")
"""At INFO these write addresses and what was said, and those hold users' words."""
SILENT_LOGGERS = ("mcp", "client")
"""The MCP SDK's: at every level they write whole URLs and messages, and keys may be in both. We say it ourselves."""

"""Loggers of libraries that must be quieter, because they write too much to our log."""

from __future__ import annotations

CHATTY_LOGGERS = ("httpx", "httpx2", "ddgs", "primp", "a2a")
"""At INFO they log addresses and messages, which contain users' texts."""
SILENT_LOGGERS = ("mcp", "client")
"""Loggers of the MCP SDK. At every level they log whole URLs and messages, which may contain keys. We log errors
ourselves."""

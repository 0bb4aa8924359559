"""The sandbox's browser, which the user can watch and take over."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moorage_api.agent.ports import Attachments, Gate, Picture, ToolCall
from moorage_api.agent.toolsets.function_schema import flag, function, number, text
from moorage_api.agent.toolsets.sandbox import SandboxToolset

INDEX = number("The element's number in the list that came with the page")
X = number("Pixels from the left edge of the visible page")
Y = number("Pixels from the top edge of the visible page")
ELEMENT_OR_POINT = {"index": INDEX, "coordinate_x": X, "coordinate_y": Y}

FUNCTIONS = [
    function(
        "browser_view",
        "Show the current page: its address, text and numbered elements.",
        read_only=True,
        is_remembered=True,
    ),
    function(
        "browser_navigate",
        "Open an address.",
        {"url": text("With its scheme, such as https://example.org")},
        is_remembered=True,
    ),
    function(
        "browser_restart",
        "Restart the browser and open an address. Use it when the browser hangs.",
        {"url": text("With its scheme, such as https://example.org")},
        is_remembered=True,
    ),
    function(
        "browser_click",
        "Click an element, by its number or by its coordinates.",
        optional=ELEMENT_OR_POINT,
        is_remembered=True,
    ),
    function(
        "browser_input",
        "Replace the text of an input field.",
        {"text": text("The text"), "press_enter": flag("Whether to press Enter afterwards")},
        ELEMENT_OR_POINT,
        is_remembered=True,
    ),
    function(
        "browser_move_mouse",
        "Move the mouse pointer.",
        {"coordinate_x": X, "coordinate_y": Y},
        is_remembered=True,
    ),
    function(
        "browser_press_key",
        "Press a key or a combination of keys.",
        {"key": text("Such as Enter, Escape, PageDown or Control+a")},
        is_remembered=True,
    ),
    function(
        "browser_select_option",
        "Choose an option of a drop-down list.",
        {"index": INDEX, "option": number("The option's position in the list, counted from 0")},
        is_remembered=True,
    ),
    function(
        "browser_scroll_up",
        "Scroll up by the height of one screen.",
        optional={"to_top": flag("Whether to scroll to the top of the page")},
        is_remembered=True,
    ),
    function(
        "browser_scroll_down",
        "Scroll down by the height of one screen.",
        optional={"to_bottom": flag("Whether to scroll to the bottom of the page")},
        is_remembered=True,
    ),
    function(
        "browser_console_exec",
        "Run JavaScript in the page.",
        {"javascript": text("The code; the value of its last expression is the result")},
        is_remembered=True,
    ),
    function(
        "browser_console_view",
        "Show what the page has written to its console.",
        optional={"max_lines": number("How many of the newest lines to show; all if left out")},
        read_only=True,
        is_remembered=True,
    ),
    function(
        "browser_screenshot",
        "Look at the visible part of the current page as a picture. Only for models that see pictures; others use "
        "`browser_view`.",
        read_only=True,
        is_remembered=True,
    ),
]


class BrowserToolset(SandboxToolset):
    default_timeout = 45.0
    timeouts: Mapping[str, float] = {"browser_navigate": 60.0, "browser_restart": 90.0}

    def __init__(self, gate: Gate, attachments: Attachments) -> None:
        super().__init__(gate, attachments, FUNCTIONS)

    @property
    def name(self) -> Literal["browser"]:
        return "browser"

    def _render_for_model(self, call: ToolCall, result: Mapping[str, Any]) -> str:
        parts = [f"{result.get('title', '')} ({result.get('url', '')})"]
        if call.function == "browser_screenshot" and (size := _size_of(_picture(result))):
            parts.append(f"The visible part of the page has {size} pixels. Coordinates count in these.")
        if "result" in result:
            parts.append(f"Result: {result['result']}")
        if "console" in result:
            parts += ["Console:", *map(str, result["console"])]
        if elements := result.get("elements"):
            parts += ["Elements:", *map(str, elements)]
        if content := result.get("content"):
            parts += ["Page:", str(content)]
        return "\n".join(parts)

    async def _look(self, call: ToolCall, result: Mapping[str, Any]) -> Sequence[Picture]:
        if call.function != "browser_screenshot":
            return ()
        return (await self._attachments.store_picture(_picture(result), key=f"{call.key}.picture"),)

    async def _event_content(self, call: ToolCall, result: Mapping[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if (picture := _picture(result)) and (
            key := await self._store(picture, content_type="image/png", suffix=".png")
        ):
            content["screenshot_key"] = key
        if call.function.startswith("browser_console_"):
            content["result"], key = await self._store_if_long(self._render_for_model(call, result))
            if key is not None:
                content["result_key"] = key
        return content


def _picture(result: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(result.get("screenshot_png") or ""), validate=True)
    except binascii.Error:
        return b""


def _size_of(png: bytes) -> str:
    """Width and height from the header of a PNG."""
    return f"{int.from_bytes(png[16:20], 'big')}x{int.from_bytes(png[20:24], 'big')}" if len(png) >= 24 else ""

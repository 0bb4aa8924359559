"""One tab of the browser: observe it, run a script in it, click and type."""

from __future__ import annotations

import json
import os
from typing import Any

from moorage_sandbox.box.browser.cdp import Cdp, CdpError, CdpTimeout
from moorage_sandbox.box.browser.keys import Key, key_events, key_for_character
from moorage_sandbox.box.browser.tabs import Tab, describe_exception
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError

WORLD = "moorage"
SCRIPT_SECONDS = 4
PICTURE_SECONDS = 5
INPUT_SECONDS = 2
AFTER_STOP_SECONDS = 3
MAX_PICTURE_CHARS = 5 * 1024 * 1024
MAX_SINGLE_KEYS = 500
"""A longer text is inserted at once, like a paste."""

with open(os.path.join(os.path.dirname(__file__), "page.js"), encoding="utf-8") as _file:
    LIBRARY = _file.read()


class Page:
    def __init__(self, cdp: Cdp, tab: Tab, deadline: Deadline) -> None:
        self.tab = tab
        self._cdp = cdp
        self._deadline = deadline
        self._is_stuck = False

    def call(self, method: str, *, seconds: float | None = None, **params: Any) -> dict[str, Any]:
        deadline = self._deadline if seconds is None else self._deadline.within(seconds)
        return self._cdp.call(method, deadline, session=self.tab.session, **params)

    def observe(self, *, content: bool) -> dict[str, Any]:
        """Return the result of `moorage.observe` in page.js.

        A page script that does not end is stopped first. A page that still does not answer is crashed on purpose,
        because otherwise no other page can be opened in its tab.
        """
        try:
            return self.ask("observe", content)
        except CdpTimeout:
            self._cdp.post("Runtime.terminateExecution", session=self.tab.session)
        try:
            observed = self.ask("observe", content, seconds=AFTER_STOP_SECONDS)
        except CdpTimeout as error:
            self.tab.crashed = True
            self._cdp.post("Page.crash", session=self.tab.session)
            raise BoxError("browser_failed", "The page did not answer and was closed.") from error
        observed["stopped"] = True
        return observed

    def ask(self, function: str, *args: Any, seconds: float = SCRIPT_SECONDS) -> dict[str, Any]:
        """Call a function of page.js."""
        arguments = ", ".join(json.dumps(it) for it in args)
        call = f"moorage.{function}({arguments})"
        result: dict[str, Any] = self._evaluate_in_own_world(call, seconds, by_value=True)["value"]
        return result

    def element(self, index: int) -> str:
        """Return the object id of an element for the protocol."""
        remote = self._evaluate_in_own_world(f"moorage.known({index})", SCRIPT_SECONDS, by_value=False)
        return str(remote["objectId"])

    def _evaluate_in_own_world(self, expression: str, seconds: float, *, by_value: bool) -> dict[str, Any]:
        deadline = self._deadline.within(seconds)
        while True:
            try:
                world = self._cdp.call(
                    "Page.createIsolatedWorld",
                    deadline,
                    session=self.tab.session,
                    frameId=self.tab.target,
                    worldName=WORLD,
                )
                answer = self._cdp.call(
                    "Runtime.evaluate",
                    deadline,
                    session=self.tab.session,
                    expression=f"{LIBRARY}\n{expression}",
                    contextId=world["executionContextId"],
                    returnByValue=by_value,
                    timeout=seconds * 1000,
                )
            except CdpError as error:
                # The document was replaced between the two calls. The new document has its own world.
                if "context" not in str(error).lower() or deadline.has_expired():
                    raise
                continue
            if "exceptionDetails" in answer:
                raise CdpError(describe_exception(answer["exceptionDetails"]))
            result: dict[str, Any] = answer["result"]
            return result

    def picture(self) -> str:
        """Return a PNG of the visible part of the tab as base64, at half the scale if it would be too large."""
        options = {"format": "png", "optimizeForSpeed": True}
        data: str = self.call("Page.captureScreenshot", seconds=PICTURE_SECONDS, **options)["data"]
        if len(data) > MAX_PICTURE_CHARS:
            view = self.call("Page.getLayoutMetrics", seconds=PICTURE_SECONDS)["cssVisualViewport"]
            clip = {
                "x": view["pageX"],
                "y": view["pageY"],
                "width": view["clientWidth"],
                "height": view["clientHeight"],
                "scale": 0.5,
            }
            data = self.call("Page.captureScreenshot", seconds=PICTURE_SECONDS, clip=clip, format="png")["data"]
        return data

    def locate(self, index: int) -> dict[str, Any]:
        """Return where to click element `index` of the last result. Raises `not_found` if it is not there."""
        found = self.ask("locate", index)
        require_present(found, index)
        return found

    def url(self) -> str:
        """Return the tab's address. The browser knows it, so a busy page does not delay the answer."""
        target = self._cdp.call("Target.getTargetInfo", self._deadline, targetId=self.tab.target)
        return str(target["targetInfo"]["url"])

    def navigate(self, step: int) -> None:
        """Go back (-1) or forward (1) in the tab's history."""
        history = self.call("Page.getNavigationHistory")
        position = history["currentIndex"] + step
        if not 0 <= position < len(history["entries"]):
            raise BoxError("not_found", f"There is no page to go {'back' if step < 0 else 'forward'} to.")
        self.call("Page.navigateToHistoryEntry", entryId=history["entries"][position]["id"])

    def move(self, x: float, y: float) -> None:
        self._act("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float, *, count: int = 1) -> None:
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._act("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    def press(self, key: Key, modifiers: int = 0) -> None:
        for event in key_events(key, modifiers):
            self._act("Input.dispatchKeyEvent", **event)

    def _act(self, method: str, **params: Any) -> None:
        """Send an input event and wait until the page has handled it.

        If the page does not handle one in time, later events are sent without waiting.
        """
        if self._is_stuck:
            self._cdp.post(method, session=self.tab.session, **params)
            return
        try:
            self.call(method, seconds=INPUT_SECONDS, **params)
        except CdpTimeout:
            self._is_stuck = True

    def type(self, text: str) -> None:
        if len(text) > MAX_SINGLE_KEYS or not text.isprintable():
            self._act("Input.insertText", text=text)
            return
        for one in text:
            key = key_for_character(one)
            if key.code:
                self.press(key)
            else:
                self._act("Input.insertText", text=one)


def require_present(found: dict[str, Any], index: int) -> None:
    missing, count = found.get("missing"), found.get("count")
    if missing == "unknown":
        known = f"from 0 to {count - 1}" if count else "none"
        raise BoxError("not_found", f"There is no element {index}. Known elements: {known}. browser_view lists them.")
    if missing is not None:
        message = f"The page has changed, and element {index} is {missing} now. browser_view lists the elements again."
        raise BoxError("not_found", message)

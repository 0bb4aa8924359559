"""The browser functions."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import suppress
from typing import Any

from moorage_sandbox.box.browser.addresses import check_url
from moorage_sandbox.box.browser.browser_window import BrowserWindow
from moorage_sandbox.box.browser.cdp import CdpError, CdpTimeout
from moorage_sandbox.box.browser.display import capture_screen
from moorage_sandbox.box.browser.keys import NAMED, parse_key
from moorage_sandbox.box.browser.page import Page, require_present
from moorage_sandbox.box.browser.tabs import describe_exception
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses

OBSERVING_SECONDS = 8
"""The part of a call's time that is reserved for observing the page after the action."""

LOAD_SECONDS = 10
SCREEN_SECONDS = 3
IDLE_SECONDS = 0.8
SETTLE_SECONDS = 8
REACTION_SECONDS = 0.25
"""How long to wait for a page to start loading after an action."""

DOWNLOAD_SECONDS = 5
MAX_RESULT_CHARS = 20_000
DEFAULT_CONSOLE_LINES = 100

HISTORY_KEYS = {"Alt+ArrowLeft": -1, "Alt+ArrowRight": 1}
RELOAD_KEYS = ("F5", "Control+r", "Control+R")
"""The browser itself handles these keys. Key events that are sent to a page do not trigger them."""


class Browser:
    def __init__(self, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self._paths = paths
        self._display = env["DISPLAY"]
        self._window = BrowserWindow(children=children, paths=paths, env=env)

    def browser_view(self, deadline: Deadline) -> dict[str, Any]:
        with self._window.use_page(deadline) as page:
            return self._observe(page, content=True)

    def browser_screenshot(self, deadline: Deadline) -> dict[str, Any]:
        """Every result has a picture of the page. This is for a model that wants to see it."""
        with self._window.use_page(deadline) as page:
            return self._observe(page, content=False)

    def browser_navigate(self, deadline: Deadline, *, url: str) -> dict[str, Any]:
        address = check_url(url, self._paths)
        with self._window.use_page(deadline) as page:
            return self._navigate(page, address, deadline)

    def browser_restart(self, deadline: Deadline, *, url: str) -> dict[str, Any]:
        address = check_url(url, self._paths)
        with self._window.use_page(deadline, restart=True) as page:
            return self._navigate(page, address, deadline)

    def browser_click(
        self,
        deadline: Deadline,
        *,
        index: int | None = None,
        coordinate_x: float | None = None,
        coordinate_y: float | None = None,
    ) -> dict[str, Any]:
        with self._window.use_page(deadline) as page:
            before = page.url()
            page.click(*_find_point(page, index, coordinate_x, coordinate_y))
            return self._after_action(page, before, deadline)

    def browser_input(
        self,
        deadline: Deadline,
        *,
        text: str,
        press_enter: bool,
        index: int | None = None,
        coordinate_x: float | None = None,
        coordinate_y: float | None = None,
    ) -> dict[str, Any]:
        """Replace the content of a field: the one at the index or coordinates, otherwise the one with the focus."""
        with self._window.use_page(deadline) as page:
            before = page.url()
            if index is not None and page.locate(index)["file"]:
                self._give_file(page, index, text)
            else:
                if (index, coordinate_x, coordinate_y) != (None, None, None):
                    page.click(*_find_point(page, index, coordinate_x, coordinate_y))
                page.press(*parse_key("Control+a"))
                if text:
                    page.type(text)
                else:
                    page.press(NAMED["delete"])
            if press_enter:
                page.press(NAMED["enter"])
            return self._after_action(page, before, deadline)

    def browser_move_mouse(self, deadline: Deadline, *, coordinate_x: float, coordinate_y: float) -> dict[str, Any]:
        with self._window.use_page(deadline) as page:
            before = page.url()
            page.move(coordinate_x, coordinate_y)
            return self._after_action(page, before, deadline)

    def browser_press_key(self, deadline: Deadline, *, key: str) -> dict[str, Any]:
        parsed, modifiers = parse_key(key)
        with self._window.use_page(deadline) as page:
            before = page.url()
            if key in HISTORY_KEYS:
                page.navigate(HISTORY_KEYS[key])
            elif key in RELOAD_KEYS:
                page.call("Page.reload")
            else:
                page.press(parsed, modifiers)
            return self._after_action(page, before, deadline)

    def browser_select_option(self, deadline: Deadline, *, index: int, option: int) -> dict[str, Any]:
        """Choose an option of a <select>. `option` counts from 0, as in the list of elements."""
        with self._window.use_page(deadline) as page:
            before = page.url()
            chosen = page.ask("choose", index, option)
            require_present(chosen, index)
            if "problem" in chosen:
                raise BoxError("invalid", chosen["problem"])
            return self._after_action(page, before, deadline)

    def browser_scroll_up(self, deadline: Deadline, *, to_top: bool = False) -> dict[str, Any]:
        return self._scroll(deadline, -1, to_top)

    def browser_scroll_down(self, deadline: Deadline, *, to_bottom: bool = False) -> dict[str, Any]:
        return self._scroll(deadline, 1, to_bottom)

    def browser_console_exec(self, deadline: Deadline, *, javascript: str) -> dict[str, Any]:
        """Run a script in the page. `result` is its value as JSON, or the exception that it threw."""
        with self._window.use_page(deadline) as page:
            before = page.url()
            seconds = _action_seconds(deadline)
            try:
                result = _run_script(page, javascript, seconds)
            except CdpTimeout as error:
                page.call("Runtime.terminateExecution", seconds=2)
                raise BoxError("timeout", f"The script did not end within {seconds:.0f} s and was stopped.") from error
            return self._after_action(page, before, deadline) | {"result": result}

    def browser_console_view(self, deadline: Deadline, *, max_lines: int = DEFAULT_CONSOLE_LINES) -> dict[str, Any]:
        with self._window.use_page(deadline) as page:
            return self._observe(page, content=False) | {"console": self._window.tabs.console_lines(max_lines)}

    def _observe(self, page: Page, *, content: bool) -> dict[str, Any]:
        """Return the result of a call: the present state of `page`, preceded by notes about what happened."""
        tabs = self._window.tabs
        seen = page.observe(content=content)
        picture = self._take_picture(page)
        elements = list(seen["elements"])
        if seen["more"]:
            elements.append(f"({seen['more']} more elements are not listed; scroll to reach them)")
        remarks = tabs.take_notes()
        if seen.get("stopped"):
            remarks.append("A script of the page did not end and was stopped.")
        if tabs.count > 1:
            remarks.append(f"This is the newest of {tabs.count} tabs.")
        position, height, whole = seen["scroll"]
        if content and whole > height:
            remarks.append(f"Scrolled to pixel {position} of {whole}; {height} pixels are visible.")
        result = {"url": seen["url"], "title": seen["title"], "elements": elements, "screenshot_png": picture}
        if content or remarks:
            text = [*(f"[{remark}]" for remark in remarks), seen.get("content", "")]
            if seen.get("left_out"):
                text.append(f"[{seen['left_out']} characters left out]")
            result["content"] = "\n".join(text).strip("\n")
        return result

    def _take_picture(self, page: Page) -> str:
        """Return a picture of the page. A page that never drew anything gives none; then it is the whole screen."""
        try:
            return page.picture()
        except CdpTimeout:
            self._window.tabs.note("The page gave no picture. The screenshot shows the whole screen.")
        try:
            return b64encode(capture_screen(self._display, Deadline(SCREEN_SECONDS))).decode()
        except OSError as error:
            message = f"Neither the page nor the screen gives a picture: {error}. Call browser_restart."
            raise BoxError("browser_failed", message) from error

    def _navigate(self, page: Page, address: str, deadline: Deadline) -> dict[str, Any]:
        tabs, tab = self._window.tabs, page.tab
        seconds = _action_seconds(deadline)
        downloads_before = tabs.downloads_begun
        try:
            answer = page.call("Page.navigate", seconds=seconds, url=address)
        except CdpTimeout as error:
            page.call("Page.stopLoading", seconds=2)
            raise BoxError("timeout", f"{address[:200]} did not answer within {seconds:.0f} s.") from error
        problem, loader = answer.get("errorText"), answer.get("loaderId")
        if problem:
            # A download also aborts the navigation, and its own event may come a moment later.
            became_download = problem == "net::ERR_ABORTED" and tabs.wait_until(
                lambda: tabs.downloads_begun > downloads_before, deadline.within(1)
            )
            if not became_download:
                raise BoxError("browser_failed", f"{address[:200]} could not be opened: {problem}")
        elif loader:
            limit = deadline.within(min(LOAD_SECONDS, seconds))
            if not tabs.wait_until(lambda: tab.has_reached(loader, "load"), limit):
                tabs.note("The page has not finished loading.")
            tabs.wait_until(lambda: tab.has_reached(loader, "networkAlmostIdle"), deadline.within(IDLE_SECONDS))
        self._await_downloads(deadline)
        return self._observe(self._window.newest_page(deadline), content=True)

    def _after_action(self, page: Page, url_before: str, deadline: Deadline) -> dict[str, Any]:
        """Wait for the effects of the action, then observe. The page's text is returned only if the page changed."""
        tabs, tab = self._window.tabs, page.tab
        tabs.wait_until(lambda: tab.loading or tabs.current is not tab, deadline.within(REACTION_SECONDS))
        if not tabs.wait_until(lambda: not tabs.loading, deadline.within(SETTLE_SECONDS)):
            tabs.note("The page has not finished loading.")
        self._await_downloads(deadline)
        newest = self._window.newest_page(deadline)
        return self._observe(newest, content=newest.tab is not tab or newest.url() != url_before)

    def _scroll(self, deadline: Deadline, direction: int, to_end: bool) -> dict[str, Any]:
        with self._window.use_page(deadline) as page:
            page.ask("scroll", direction, to_end)
            # The page may load more content when it is scrolled.
            self._window.tabs.wait_until(lambda: page.tab.loading, deadline.within(REACTION_SECONDS))
            return self._observe(page, content=True)

    def _give_file(self, page: Page, index: int, text: str) -> None:
        path = self._paths.resolve(text)
        if not os.path.isfile(path):
            raise BoxError("not_found", f"There is no file {text}. For this field, 'text' must be the path of a file.")
        page.call("DOM.setFileInputFiles", files=[path], objectId=page.element(index))

    def _await_downloads(self, deadline: Deadline) -> None:
        tabs = self._window.tabs
        if not tabs.wait_until(lambda: not tabs.downloading, deadline.within(DOWNLOAD_SECONDS)):
            tabs.note(f"These downloads to {self._paths.downloads} still run: {', '.join(tabs.downloading)}.")


def _action_seconds(deadline: Deadline) -> float:
    return max(1.0, deadline.remaining() - OBSERVING_SECONDS)


def _find_point(page: Page, index: int | None, x: float | None, y: float | None) -> tuple[float, float]:
    if index is not None:
        found = page.locate(index)
        return found["x"], found["y"]
    if x is None or y is None:
        raise BoxError("invalid", "Give the 'index' of an element, or 'coordinate_x' and 'coordinate_y'.")
    return x, y


def _run_script(page: Page, javascript: str, seconds: float) -> str:
    """Return the script's value as JSON, the exception, or a description of a value that has no JSON.

    If the value is a promise, wait for its result.
    """
    # replMode allows `await` and a second `let` of the same name, as the browser's console does.
    answer = page.call(
        "Runtime.evaluate",
        seconds=seconds,
        expression=javascript,
        awaitPromise=True,
        replMode=True,
        userGesture=True,
        timeout=seconds * 1000,
    )
    described = answer["result"]
    if "exceptionDetails" not in answer and described.get("subtype") == "promise":
        answer = page.call("Runtime.awaitPromise", seconds=seconds, promiseObjectId=described["objectId"])
        described = answer["result"]
    if "exceptionDetails" not in answer and "objectId" in described:
        with suppress(CdpError):
            answer = page.call(
                "Runtime.callFunctionOn",
                seconds=seconds,
                objectId=described["objectId"],
                functionDeclaration="function() { return this; }",
                returnByValue=True,
            )
    if "exceptionDetails" in answer:
        text = describe_exception(answer["exceptionDetails"])
    elif "value" in answer["result"]:
        text = json.dumps(answer["result"]["value"], ensure_ascii=False)
    else:
        text = str(described.get("unserializableValue") or described.get("description") or "undefined")
    left_out = len(text) - MAX_RESULT_CHARS
    return text if left_out <= 0 else f"{text[:MAX_RESULT_CHARS]} [{left_out} characters left out]"

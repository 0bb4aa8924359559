"""The twelve browser functions."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moorage_sandbox.box.browser.addresses import checked_url
from moorage_sandbox.box.browser.cdp import CdpClosed, CdpError, CdpTimeout
from moorage_sandbox.box.browser.chromium import Chromium, start
from moorage_sandbox.box.browser.keys import NAMED, parse
from moorage_sandbox.box.browser.page import Page, require_present
from moorage_sandbox.box.browser.tabs import Tab, Tabs, exception_text
from moorage_sandbox.box.deadline import Deadline
from moorage_sandbox.box.errors import BoxError
from moorage_sandbox.box.paths import Paths
from moorage_sandbox.box.processes import Children

OBSERVING_SECONDS = 8
"""Kept back from an action's time to look at what came of it."""
LOAD_SECONDS = 15
SETTLE_SECONDS = 8
REACTION_SECONDS = 0.25
"""How long a page may take to begin something after a click."""
IDLE_SECONDS = 0.8
DOWNLOAD_SECONDS = 5
MAX_RESULT_CHARACTERS = 20_000
DEFAULT_CONSOLE_LINES = 100

HISTORY_KEYS = {"Alt+ArrowLeft": -1, "Alt+ArrowRight": 1}
RELOAD_KEYS = ("F5", "Control+r", "Control+R")


class Browser:
    """One call at a time; Chromium is started by the first and by the first after it has ended."""

    def __init__(self, *, children: Children, paths: Paths, env: dict[str, str]) -> None:
        self._children = children
        self._paths = paths
        self._env = env
        self._lock = threading.Lock()
        self._chromium: Chromium | None = None
        self._tabs = Tabs()

    def browser_view(self, deadline: Deadline) -> dict[str, Any]:
        with self._opened(deadline) as page:
            return self._observed(page, deadline, content=True)

    def browser_navigate(self, deadline: Deadline, *, url: str) -> dict[str, Any]:
        address = checked_url(url, self._paths)
        with self._opened(deadline) as page:
            return self._navigated(page, address, deadline)

    def browser_restart(self, deadline: Deadline, *, url: str) -> dict[str, Any]:
        address = checked_url(url, self._paths)
        with self._locked(deadline):
            self._end()
        with self._opened(deadline) as page:
            return self._navigated(page, address, deadline)

    def browser_click(
        self,
        deadline: Deadline,
        *,
        index: int | None = None,
        coordinate_x: float | None = None,
        coordinate_y: float | None = None,
    ) -> dict[str, Any]:
        with self._opened(deadline) as page:
            before = self._url(page)
            page.click(*self._point(page, index, coordinate_x, coordinate_y))
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
        """Replace what a field holds; without index and coordinates, that of the field which has the focus."""
        with self._opened(deadline) as page:
            before = self._url(page)
            if index is not None and page.locate(index)["file"]:
                self._give_file(page, index, text)
            else:
                if index is not None or coordinate_x is not None or coordinate_y is not None:
                    page.click(*self._point(page, index, coordinate_x, coordinate_y))
                page.press(*parse("Control+a"))
                if text:
                    page.type(text)
                else:
                    page.press(NAMED["delete"])
            if press_enter:
                page.press(NAMED["enter"])
            return self._after_action(page, before, deadline)

    def browser_move_mouse(self, deadline: Deadline, *, coordinate_x: float, coordinate_y: float) -> dict[str, Any]:
        with self._opened(deadline) as page:
            before = self._url(page)
            page.move(coordinate_x, coordinate_y)
            return self._after_action(page, before, deadline)

    def browser_press_key(self, deadline: Deadline, *, key: str) -> dict[str, Any]:
        parsed, modifiers = parse(key)
        with self._opened(deadline) as page:
            before = self._url(page)
            if key in HISTORY_KEYS:
                self._go(page, HISTORY_KEYS[key])
            elif key in RELOAD_KEYS:
                page.call("Page.reload")
            else:
                page.press(parsed, modifiers)
            return self._after_action(page, before, deadline)

    def browser_select_option(self, deadline: Deadline, *, index: int, option: int) -> dict[str, Any]:
        with self._opened(deadline) as page:
            before = self._url(page)
            chosen = page.ask("choose", index, option)
            require_present(chosen, index)
            if "problem" in chosen:
                raise BoxError("invalid", chosen["problem"])
            return self._after_action(page, before, deadline)

    def browser_scroll_up(self, deadline: Deadline, *, to_top: bool = False) -> dict[str, Any]:
        return self._scrolled(deadline, -1, to_top)

    def browser_scroll_down(self, deadline: Deadline, *, to_bottom: bool = False) -> dict[str, Any]:
        return self._scrolled(deadline, 1, to_bottom)

    def browser_console_exec(self, deadline: Deadline, *, javascript: str) -> dict[str, Any]:
        """Run a script in the page itself. `result` is its value as JSON, or what it threw."""
        with self._opened(deadline) as page:
            before = self._url(page)
            seconds = max(1.0, deadline.remaining() - OBSERVING_SECONDS)
            try:
                result = _run(page, javascript, seconds)
            except CdpTimeout as error:
                page.call("Runtime.terminateExecution", seconds=2)
                raise BoxError("timeout", f"The script did not end within {seconds:g} s and was stopped.") from error
            return self._after_action(page, before, deadline) | {"result": result}

    def browser_console_view(self, deadline: Deadline, *, max_lines: int = DEFAULT_CONSOLE_LINES) -> dict[str, Any]:
        with self._opened(deadline) as page:
            with self._tabs.changed:
                lines = list(self._tabs.console)[-max_lines:]
            return self._observed(page, deadline, content=False) | {"console": lines}

    # The browser itself.

    @contextmanager
    def _locked(self, deadline: Deadline) -> Iterator[None]:
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise BoxError("busy", "Another call still uses the browser.")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _opened(self, deadline: Deadline) -> Iterator[Page]:
        """The newest tab of a running browser; what goes wrong with the browser becomes a BoxError."""
        with self._locked(deadline):
            tab: Tab | None = None
            try:
                page = self._ready_page(deadline)
                tab = page.tab
                yield page
            except CdpClosed as error:
                raise BoxError(
                    "browser_failed", "The browser ended during this call; the next starts it anew."
                ) from error
            except CdpTimeout as error:
                if tab is not None and tab.crashed:
                    message = "The page crashed; browser_navigate opens another."
                else:
                    message = "The page or the browser does not answer. browser_restart starts it anew."
                raise BoxError("browser_failed", message) from error
            except CdpError as error:
                raise BoxError("browser_failed", f"The browser refused: {error}") from error

    def _ready_page(self, deadline: Deadline) -> Page:
        if self._chromium is not None and self._chromium.cdp.closed:
            self._end()
            self._tabs.note("The browser had ended and was started anew; what it showed is gone.")
        if self._chromium is None:
            self._start(deadline)
        assert self._chromium is not None
        cdp = self._chromium.cdp
        tab = self._tabs.current
        if tab is not None and tab.crashed:
            self._tabs.note("The page had crashed and was closed.")
            self._tabs.forget(tab)
            if self._tabs.current is None:
                cdp.call("Target.createTarget", deadline, url="about:blank")
            cdp.post("Target.closeTarget", targetId=tab.target)
        if self._tabs.current is None and not self._tabs.wait_until(lambda: self._tabs.count, deadline.within(0.5)):
            cdp.call("Target.createTarget", deadline, url="about:blank")
        if not self._tabs.wait_until(lambda: self._tabs.current is not None, deadline.within(10)):
            raise CdpTimeout("a tab")
        tab = self._tabs.current
        assert tab is not None
        return Page(cdp, tab, deadline)

    def _start(self, deadline: Deadline) -> None:
        notes = self._tabs.take_notes()
        self._tabs = tabs = Tabs()
        for note in notes:
            tabs.note(note)
        chromium = start(
            children=self._children, paths=self._paths, env=self._env, on_event=tabs.on_event, deadline=deadline
        )
        tabs.cdp = chromium.cdp
        self._chromium = chromium
        os.makedirs(self._paths.downloads, exist_ok=True)
        cdp = chromium.cdp
        cdp.call(
            "Browser.setDownloadBehavior",
            deadline,
            behavior="allow",
            downloadPath=self._paths.downloads,
            eventsEnabled=True,
        )
        # Paused at first, so that nothing a new page does comes before we listen.
        cdp.call(
            "Target.setAutoAttach",
            deadline,
            autoAttach=True,
            waitForDebuggerOnStart=True,
            flatten=True,
            filter=[{"type": "page"}],
        )

    def _end(self) -> None:
        chromium, self._chromium = self._chromium, None
        if chromium is not None:
            chromium.end()

    # What actions have in common.

    def _observed(self, page: Page, deadline: Deadline, *, content: bool) -> dict[str, Any]:
        """The result of a call: what the newest tab shows now, after what is to be said about the way there."""
        tab = self._tabs.current
        if tab is not None and tab is not page.tab:
            assert self._chromium is not None
            page, content = Page(self._chromium.cdp, tab, deadline), True
        observed = page.observe(content=content)
        result: dict[str, Any] = {
            "url": observed["url"],
            "title": observed["title"],
            "elements": observed["elements"],
            "screenshot_png": page.picture(),
        }
        if observed.get("stopped"):
            self._tabs.note("The page's script did not end and was stopped.")
        if observed["more"]:
            result["elements"].append(f"({observed['more']} more elements are not listed; scroll to reach them)")
        notes = [f"[{note}]" for note in self._tabs.take_notes()]
        if self._tabs.count > 1:
            notes.append(f"[This is the newest of {self._tabs.count} tabs.]")
        if content:
            position, height, whole = observed["scroll"]
            if whole > height:
                notes.append(f"[Scrolled to {position} of {whole} pixels; {height} are seen.]")
            left_out = f"\n[{observed['left_out']} characters left out]" if observed["left_out"] else ""
            result["content"] = "\n".join([*notes, observed["content"]]) + left_out
        elif notes:
            result["content"] = "\n".join(notes)
        return result

    def _navigated(self, page: Page, address: str, deadline: Deadline) -> dict[str, Any]:
        seconds = max(1.0, deadline.remaining() - OBSERVING_SECONDS)
        try:
            answer = page.call("Page.navigate", seconds=seconds, url=address)
        except CdpTimeout as error:
            page.call("Page.stopLoading", seconds=2)
            raise BoxError("timeout", f"{address[:200]} did not answer within {seconds:g} s.") from error
        problem = answer.get("errorText")
        if problem and not (problem == "net::ERR_ABORTED" and self._is_download()):
            raise BoxError("browser_failed", f"{address[:200]} could not be opened: {problem}")
        loader = answer.get("loaderId")
        if loader and not problem:
            reached = page.tab.reached
            limit = deadline.within(min(LOAD_SECONDS, seconds))
            if not self._tabs.wait_until(lambda: (loader, "load") in page.tab.reached or page.tab.crashed, limit):
                self._tabs.note("The page has not finished loading.")
            del reached
            self._tabs.wait_until(
                lambda: (loader, "networkAlmostIdle") in page.tab.reached or page.tab.crashed,
                deadline.within(IDLE_SECONDS),
            )
        self._await_downloads(deadline)
        return self._observed(page, deadline, content=True)

    def _after_action(self, page: Page, url_before: str, deadline: Deadline) -> dict[str, Any]:
        """Wait for what the action began, then look. The text is worth its length only where the page is another."""
        tabs, tab = self._tabs, page.tab
        tabs.wait_until(lambda: tab.loading or tabs.current is not tab, deadline.within(REACTION_SECONDS))
        if not tabs.wait_until(
            lambda: tabs.current is None or not tabs.current.loading, deadline.within(SETTLE_SECONDS)
        ):
            tabs.note("The page has not finished loading.")
        self._await_downloads(deadline)
        if tabs.current is None:
            page = self._ready_page(deadline)
        observed_page = page if tabs.current is tab else self._ready_page(deadline)
        return self._observed(observed_page, deadline, content=self._url(observed_page) != url_before)

    def _scrolled(self, deadline: Deadline, direction: int, to_end: bool) -> dict[str, Any]:
        with self._opened(deadline) as page:
            page.ask("scroll", direction, to_end)
            # What comes into view may be loaded only now.
            self._tabs.wait_until(lambda: page.tab.loading, deadline.within(REACTION_SECONDS))
            return self._observed(page, deadline, content=True)

    def _url(self, page: Page) -> str:
        assert self._chromium is not None
        info = self._chromium.cdp.call("Target.getTargetInfo", Deadline(5), targetId=page.tab.target)
        return str(info["targetInfo"]["url"])

    def _point(self, page: Page, index: int | None, x: float | None, y: float | None) -> tuple[float, float]:
        if index is not None:
            found = page.locate(index)
            return found["x"], found["y"]
        if x is None or y is None:
            raise BoxError("invalid", "Say where: 'index' of an element, or 'coordinate_x' and 'coordinate_y'.")
        return x, y

    def _give_file(self, page: Page, index: int, text: str) -> None:
        path = self._paths.resolve(text)
        if not os.path.isfile(path):
            raise BoxError("not_found", f"{text} is no file; for this field 'text' must be a file's path.")
        page.call("DOM.setFileInputFiles", files=[path], objectId=page.element(index))

    def _go(self, page: Page, step: int) -> None:
        history = page.call("Page.getNavigationHistory")
        position = history["currentIndex"] + step
        if not 0 <= position < len(history["entries"]):
            raise BoxError("not_found", f"There is no page to go {'back' if step < 0 else 'forward'} to.")
        page.call("Page.navigateToHistoryEntry", entryId=history["entries"][position]["id"])

    def _is_download(self) -> bool:
        return self._tabs.wait_until(lambda: self._tabs.has_downloads, Deadline(1))

    def _await_downloads(self, deadline: Deadline) -> None:
        if not self._tabs.wait_until(lambda: not self._tabs.downloading, deadline.within(DOWNLOAD_SECONDS)):
            names = ", ".join(self._tabs.downloading)
            self._tabs.note(f"Still being downloaded to {self._paths.downloads}: {names}")


def _run(page: Page, javascript: str, seconds: float) -> str:
    options: dict[str, Any] = {"awaitPromise": True, "replMode": True, "userGesture": True, "timeout": seconds * 1000}
    try:
        answer = page.call("Runtime.evaluate", seconds=seconds, expression=javascript, returnByValue=True, **options)
    except CdpError as error:
        # A window or a DOM node has no JSON; run again it would do twice what it does.
        return f"(the value cannot be shown: {error})"
    if "exceptionDetails" in answer:
        shown = exception_text(answer["exceptionDetails"])
    elif "value" in answer["result"]:
        shown = json.dumps(answer["result"]["value"], ensure_ascii=False)
    else:
        shown = str(answer["result"].get("unserializableValue") or answer["result"].get("description") or "undefined")
    left_out = len(shown) - MAX_RESULT_CHARACTERS
    return shown if left_out <= 0 else f"{shown[:MAX_RESULT_CHARACTERS]} [{left_out} characters left out]"

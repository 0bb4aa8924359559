"""Keeps one Chromium running: starts it when it is needed, and gives callers its newest tab."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moorage_sandbox.box.browser.cdp import CdpClosed, CdpError, CdpTimeout
from moorage_sandbox.box.browser.chromium import Chromium, start_chromium
from moorage_sandbox.box.browser.page import Page
from moorage_sandbox.box.browser.tabs import Tabs
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, translate_os_errors
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses

TAB_SECONDS = 10


class BrowserWindow:
    """`use_page` lets one call in at a time. Only that call may use the other members."""

    def __init__(self, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self.tabs = Tabs()
        self._children = children
        self._paths = paths
        self._env = env
        self._lock = threading.Lock()
        self._chromium: Chromium | None = None

    @contextmanager
    def use_page(self, deadline: Deadline, *, restart: bool = False) -> Iterator[Page]:
        """Yield the newest tab. With `restart`, start a new browser first. Errors of the browser become BoxError."""
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise BoxError("busy", "Another call still uses the browser. Try again later.")
        try:
            if restart:
                self._end()
            yield self.newest_page(deadline)
        except CdpClosed as error:
            raise BoxError(
                "browser_failed", "The browser ended during this call. The next call restarts it."
            ) from error
        except CdpTimeout as error:
            message = "The page or the browser does not answer. Call browser_restart."
            raise BoxError("browser_failed", message) from error
        except CdpError as error:
            raise BoxError(
                "browser_failed", f"The browser refused the action: {error}. browser_view shows the page now."
            ) from error
        finally:
            self._lock.release()

    def newest_page(self, deadline: Deadline) -> Page:
        """Return the newest tab. Starts the browser, opens a tab or replaces a crashed tab where needed."""
        if self._chromium is not None and not self._chromium.is_alive(deadline):
            self._end()
            self.tabs.note("The browser had ended and was restarted. Its open pages are lost.")
        chromium = self._chromium or self._start(deadline)
        tabs = self.tabs
        crashed = tabs.current
        if crashed is not None and crashed.crashed:
            tabs.note("The page had crashed and was closed.")
            tabs.forget(crashed)
            if tabs.current is None:
                chromium.cdp.call("Target.createTarget", deadline, url="about:blank")
            chromium.cdp.post("Target.closeTarget", targetId=crashed.target)
        if not tabs.wait_until(lambda: tabs.current is not None, deadline.within(1)):
            chromium.cdp.call("Target.createTarget", deadline, url="about:blank")
            tabs.wait_until(lambda: tabs.current is not None, deadline.within(TAB_SECONDS))
        if tabs.current is None:
            raise CdpTimeout("a tab")
        return Page(chromium.cdp, tabs.current, deadline)

    def _start(self, deadline: Deadline) -> Chromium:
        # A new object, because late events of an older browser may still change the old one.
        self.tabs = tabs = Tabs(notes=self.tabs.take_notes())
        with translate_os_errors("The browser"):
            os.makedirs(self._paths.downloads, exist_ok=True)
            self._chromium = chromium = start_chromium(
                children=self._children, paths=self._paths, env=self._env, on_event=tabs.on_event, deadline=deadline
            )
        tabs.cdp = chromium.cdp
        chromium.cdp.call(
            "Browser.setDownloadBehavior",
            deadline,
            behavior="allow",
            downloadPath=self._paths.downloads,
            eventsEnabled=True,
        )
        # New pages start paused, so that no event of a page comes before its events are enabled.
        chromium.cdp.call(
            "Target.setAutoAttach",
            deadline,
            autoAttach=True,
            waitForDebuggerOnStart=True,
            flatten=True,
            filter=[{"type": "page"}],
        )
        tabs.wait_until(lambda: tabs.current is not None, deadline.within(TAB_SECONDS))
        if tabs.current is not None:
            # Navigating before the tab's first, empty document exists sometimes crashes the tab.
            Page(chromium.cdp, tabs.current, deadline).call("Runtime.evaluate", seconds=TAB_SECONDS, expression="0")
        return chromium

    def _end(self) -> None:
        chromium, self._chromium = self._chromium, None
        if chromium is not None:
            chromium.end()

"""Keeps one Chromium running: starts it at the first use and after it has ended, and hands out its newest tab."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moorage_sandbox.box.browser.cdp import CdpClosed, CdpError, CdpTimeout
from moorage_sandbox.box.browser.chromium import Chromium, start
from moorage_sandbox.box.browser.page import Page
from moorage_sandbox.box.browser.tabs import Tabs
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError, explained
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcesses

TAB_SECONDS = 10


class Window:
    """`opened` lets one call in at a time; everything else is for the call that is in."""

    def __init__(self, *, children: ChildProcesses, paths: Paths, env: dict[str, str]) -> None:
        self.tabs = Tabs()
        self._children = children
        self._paths = paths
        self._env = env
        self._lock = threading.Lock()
        self._chromium: Chromium | None = None

    @contextmanager
    def opened(self, deadline: Deadline, *, anew: bool = False) -> Iterator[Page]:
        """The newest tab of a running browser, of a new one if `anew`. What goes wrong becomes a BoxError."""
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise BoxError("busy", "Another call still uses the browser.")
        try:
            if anew:
                self._end()
            yield self.newest_page(deadline)
        except CdpClosed as error:
            raise BoxError("browser_failed", "The browser ended during this call; the next starts it anew.") from error
        except CdpTimeout as error:
            message = "The page or the browser does not answer. browser_restart starts it anew."
            raise BoxError("browser_failed", message) from error
        except CdpError as error:
            raise BoxError(
                "browser_failed", f"The browser refused: {error}. browser_view shows what is left."
            ) from error
        finally:
            self._lock.release()

    def newest_page(self, deadline: Deadline) -> Page:
        """Makes what is missing: the browser, a tab, a tab in place of one that crashed."""
        if self._chromium is not None and not self._chromium.is_alive(deadline):
            self._end()
            self.tabs.note("The browser had ended and was started anew; what it showed is gone.")
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
        # A new list: events of an older browser may still be on their way to the old one.
        self.tabs = tabs = Tabs(notes=self.tabs.take_notes())
        with explained("The browser"):
            os.makedirs(self._paths.downloads, exist_ok=True)
            self._chromium = chromium = start(
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
        # Paused at first, so that nothing a new page does comes before we listen.
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
            # Sent on before its first, empty document is there, a tab sometimes crashes.
            Page(chromium.cdp, tabs.current, deadline).call("Runtime.evaluate", seconds=TAB_SECONDS, expression="0")
        return chromium

    def _end(self) -> None:
        chromium, self._chromium = self._chromium, None
        if chromium is not None:
            chromium.end()

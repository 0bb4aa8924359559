"""Keeps the state that the browser's events report: open tabs, loading, dialogs, downloads and the console."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from moorage_sandbox.box.browser.cdp import Cdp
from moorage_sandbox.box.shared.deadline import Deadline

MAX_CONSOLE_LINES = 1000
MAX_CONSOLE_LINE = 1000
MAX_NOTES = 20
MAX_DIALOGS = 20
"""The dialogs that a page may open during one call. More of them are a loop."""
CONFIRMED_DIALOGS = ("alert", "beforeunload")
"""These dialogs are accepted: an alert has only one answer, and the caller wants to leave the page. Others are not."""

NO_PRINTING = "window.print = () => console.log('The page asked to be printed.')"
"""The print dialog would block the page until a person closes it."""


class Tab:
    def __init__(self, target: str, session: str) -> None:
        self.target = target
        self.session = session
        self.loading = False
        self.crashed = False
        self.dialogs = 0
        self.reached: set[tuple[str, str]] = set()
        """The lifecycle events of the main frame's present document, as (loader id, event name)."""

    def has_reached(self, loader: str, name: str) -> bool:
        """Whether the event has happened. True for a crashed tab, because waiting for it is useless."""
        return self.crashed or (loader, name) in self.reached


class Tabs:
    """The connection's thread delivers the events. Callers wait in `wait_until`."""

    def __init__(self, notes: list[str] | None = None) -> None:
        self.cdp: Cdp | None = None
        self.downloads_begun = 0
        self._changed = threading.Condition()
        self._closed = False
        self._console: deque[str] = deque(maxlen=MAX_CONSOLE_LINES)
        self._tabs: list[Tab] = []
        self._notes: deque[str] = deque(notes or (), maxlen=MAX_NOTES)
        self._downloads: dict[str, str] = {}
        self._handlers = {
            "closed": self._on_closed,
            "Target.attachedToTarget": self._on_attached,
            "Target.detachedFromTarget": self._on_detached,
            "Target.targetCrashed": self._on_crashed,
            "Inspector.targetCrashed": self._on_own_crash,
            "Inspector.targetReloadedAfterCrash": self._on_recovery,
            "Page.frameStartedLoading": self._on_loading,
            "Page.frameStoppedLoading": self._on_loaded,
            "Page.lifecycleEvent": self._on_lifecycle,
            "Page.javascriptDialogOpening": self._on_dialog,
            "Page.fileChooserOpened": self._on_file_chooser,
            "Browser.downloadWillBegin": self._on_download,
            "Browser.downloadProgress": self._on_download_progress,
            "Runtime.consoleAPICalled": self._on_console,
            "Runtime.exceptionThrown": self._on_exception,
            "Log.entryAdded": self._on_log,
        }

    @property
    def current(self) -> Tab | None:
        """The newest open tab. If a click opened a tab, the caller wants to see that one."""
        newest = self._tabs[-1:]
        return newest[0] if newest else None

    @property
    def count(self) -> int:
        return len(self._tabs)

    @property
    def loading(self) -> bool:
        return self.current is not None and self.current.loading

    @property
    def downloading(self) -> list[str]:
        return list(self._downloads.values())

    def note(self, text: str) -> None:
        """Add a note to the next result."""
        with self._changed:
            self._notes.append(text)

    def take_notes(self) -> list[str]:
        with self._changed:
            notes = list(self._notes)
            self._notes.clear()
            for tab in self._tabs:
                tab.dialogs = 0
        return notes

    def console_lines(self, most: int) -> list[str]:
        with self._changed:
            return list(self._console)[-most:]

    def forget(self, tab: Tab) -> None:
        with self._changed:
            if tab in self._tabs:
                self._tabs.remove(tab)

    def on_event(self, method: str, params: dict[str, Any], session: str) -> None:
        handler = self._handlers.get(method)
        if handler is not None:
            with self._changed:
                handler(params, self._by_session(session))
                self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until `condition()` is true. It is checked after each event. False at the deadline."""
        with self._changed:
            while not condition():
                if deadline.has_expired() or self._closed:
                    return False
                self._changed.wait(deadline.remaining())
        return True

    def _by_session(self, session: str) -> Tab | None:
        return next((tab for tab in self._tabs if tab.session == session), None)

    def _post(self, method: str, session: str, **params: Any) -> None:
        assert self.cdp is not None
        self.cdp.post(method, session=session, **params)

    def _on_closed(self, params: dict[str, Any], tab: Tab | None) -> None:
        self._closed = True

    def _on_attached(self, params: dict[str, Any], tab: Tab | None) -> None:
        session, info = params["sessionId"], params["targetInfo"]
        if info["type"] != "page":
            self._post("Runtime.runIfWaitingForDebugger", session)
            self._post("Target.detachFromTarget", "", sessionId=session)
            return
        self._tabs.append(Tab(info["targetId"], session))
        self._post("Page.enable", session)
        self._post("Page.setLifecycleEventsEnabled", session, enabled=True)
        self._post("Page.setInterceptFileChooserDialog", session, enabled=True)
        self._post("Page.addScriptToEvaluateOnNewDocument", session, source=NO_PRINTING)
        self._post("Runtime.enable", session)
        self._post("Log.enable", session)
        self._post("Emulation.setFocusEmulationEnabled", session, enabled=True)
        self._post("Runtime.runIfWaitingForDebugger", session)
        self._post("Page.bringToFront", session)

    def _on_detached(self, params: dict[str, Any], tab: Tab | None) -> None:
        gone = self._by_session(params["sessionId"])
        if gone is None:
            return
        was_current = gone is self.current
        self._tabs.remove(gone)
        if was_current and self.current is not None:
            self._post("Page.bringToFront", self.current.session)

    def _on_crashed(self, params: dict[str, Any], tab: Tab | None) -> None:
        for it in self._tabs:
            if it.target == params["targetId"]:
                self._on_own_crash(params, it)

    def _on_own_crash(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is not None:
            tab.crashed = True
            assert self.cdp is not None
            self.cdp.abandon(tab.session)

    def _on_recovery(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is not None:
            tab.crashed = False
            assert self.cdp is not None
            self.cdp.resume(tab.session)

    def _on_loading(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is not None and params["frameId"] == tab.target:
            tab.loading = True

    def _on_loaded(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is not None and params["frameId"] == tab.target:
            tab.loading = False

    def _on_lifecycle(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is not None and params["frameId"] == tab.target:
            if params["name"] == "init":
                tab.reached = set()
            tab.reached.add((params["loaderId"], params["name"]))

    def _on_dialog(self, params: dict[str, Any], tab: Tab | None) -> None:
        if tab is None or tab.crashed:
            return
        tab.dialogs += 1
        if tab.dialogs > MAX_DIALOGS:
            # Its script cannot be stopped: that is put off while a dialog is open.
            self._post("Page.crash", tab.session)
            self._notes.append("The page showed one dialog after another.")
            return
        kind, accept = params["type"], params["type"] in CONFIRMED_DIALOGS
        self._post("Page.handleJavaScriptDialog", tab.session, accept=accept)
        did = "confirmed" if accept else "declined"
        if kind != "beforeunload":
            self._notes.append(f"The page showed a dialog ({kind}), which was {did}: {params['message'][:500]!r}")

    def _on_file_chooser(self, params: dict[str, Any], tab: Tab | None) -> None:
        self._notes.append(
            "The page asked for a file. To give it one, use browser_input on its file field with the file's path."
        )

    def _on_download(self, params: dict[str, Any], tab: Tab | None) -> None:
        self.downloads_begun += 1
        self._downloads[params["guid"]] = params["suggestedFilename"]

    def _on_download_progress(self, params: dict[str, Any], tab: Tab | None) -> None:
        if params["state"] == "inProgress":
            return
        name = self._downloads.pop(params["guid"], None)
        if name is None:
            return
        if params["state"] == "completed":
            where = params.get("filePath") or f"downloads/{name}"
            self._notes.append(f"Downloaded {where} ({int(params['receivedBytes'])} bytes).")
        else:
            self._notes.append(f"The download of {name} was cancelled.")

    def _on_console(self, params: dict[str, Any], tab: Tab | None) -> None:
        self._print(params["type"], " ".join(_describe_argument(it) for it in params["args"]))

    def _on_exception(self, params: dict[str, Any], tab: Tab | None) -> None:
        self._print("exception", describe_exception(params["exceptionDetails"]))

    def _on_log(self, params: dict[str, Any], tab: Tab | None) -> None:
        entry = params["entry"]
        self._print(entry["level"], f"{entry['text']} {entry.get('url', '')}".rstrip())

    def _print(self, kind: str, text: str) -> None:
        self._console.append(f"{kind}: {text}"[:MAX_CONSOLE_LINE])


def describe_exception(details: dict[str, Any]) -> str:
    exception = details.get("exception", {})
    description = str(exception.get("description") or exception.get("value") or "")
    return f"{details.get('text', '')} {description}".strip()


def _describe_argument(remote: dict[str, Any]) -> str:
    """Return a console argument as text."""
    if "value" in remote:
        return str(remote["value"])
    if preview := remote.get("preview"):
        properties = ", ".join(f"{it['name']}: {it.get('value', it['type'])}" for it in preview.get("properties", ()))
        return f"{remote.get('description', '')} {{{properties}}}"
    return str(remote.get("unserializableValue") or remote.get("description") or remote.get("type"))

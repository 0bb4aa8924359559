"""Starts and ends the Chromium of the box."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from moorage_sandbox.box.browser.cdp import Cdp, CdpClosed, CdpError, CdpTimeout
from moorage_sandbox.box.browser.display import Screen, wait_for_screen
from moorage_sandbox.box.shared.deadline import Deadline
from moorage_sandbox.box.shared.errors import BoxError
from moorage_sandbox.box.shared.paths import Paths
from moorage_sandbox.box.shared.processes import ChildProcess, ChildProcesses

PROGRAMS = ("/usr/lib/chromium/chromium", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
"""Debian's start script comes second, because it adds its own flags and takes a tenth of a second."""

COMMANDS_FD = 3
ANSWERS_FD = 4

START_SECONDS = 20
SCREEN_SECONDS = 10
LEAST_SHM_BYTES = 256 * 1024 * 1024

FLAGS = (
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-domain-reliability",
    "--disable-client-side-phishing-detection",
    "--disable-hang-monitor",
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--disable-search-engine-choice-screen",
    "--disable-smooth-scrolling",
    "--disable-features=Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider,Prerender2",
    "--hide-crash-restore-bubble",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-pings",
    "--noerrdialogs",
    "--password-store=basic",
    "--disk-cache-size=67108864",
    "--force-color-profile=srgb",
    "--window-position=0,0",
)


class Chromium:
    """A started browser and the connection to it."""

    def __init__(self, child: ChildProcess, cdp: Cdp) -> None:
        self._child = child
        self.cdp = cdp

    def is_alive(self, deadline: Deadline) -> bool:
        """Ask the browser. A stored state could be wrong, because the event of its end may not have arrived yet."""
        try:
            self.cdp.call("Browser.getVersion", deadline)
        except CdpClosed:
            return False
        return True

    def end(self) -> None:
        """Ask the browser to close, so that it writes its profile. Then end it with signals."""
        if not self.cdp.closed:
            self.cdp.post("Browser.close")
            self._child.wait(2)
        self._child.end(grace_seconds=1)


def start_chromium(
    *,
    children: ChildProcesses,
    paths: Paths,
    env: dict[str, str],
    on_event: Callable[[str, dict[str, Any], str], None],
    deadline: Deadline,
) -> Chromium:
    """Start Chromium on the screen. Raises BoxError `browser_failed` with the reason."""
    program = next((it for it in PROGRAMS if os.access(it, os.X_OK)), None)
    if program is None:
        raise BoxError("browser_failed", "Chromium is not installed in this sandbox.")
    screen = wait_for_screen(env["DISPLAY"], deadline.within(SCREEN_SECONDS))
    profile = os.path.join(paths.home, ".config", "moorage-chromium")
    os.makedirs(profile, exist_ok=True)
    _remove_locks(profile)
    problem = "it did not start"
    # Chromium's own sandbox may fail although the probe succeeded. Then Chromium is started without it.
    for sandboxed in (True, False) if can_make_namespaces(children) else (False,):
        argv = [program, *FLAGS, *_machine_flags(profile, screen, sandboxed), "about:blank"]
        chromium, problem = _try_start(
            argv, children=children, env=_environment(env, paths), on_event=on_event, deadline=deadline
        )
        if chromium is not None:
            return chromium
    raise BoxError("browser_failed", f"Chromium could not be started: {problem}")


def can_make_namespaces(children: ChildProcesses) -> bool:
    """Try to make the namespaces that Chromium's own sandbox needs. Root and restricted pods cannot use it."""
    if os.geteuid() == 0 or not os.access("/usr/bin/unshare", os.X_OK):
        return False
    null = os.open("/dev/null", os.O_RDWR)
    try:
        argv = ["/usr/bin/unshare", "--user", "--map-root-user", "--pid", "--net", "--fork", "/bin/true"]
        probe = children.spawn(argv, env={}, fds={0: null, 1: null, 2: null})
    finally:
        os.close(null)
    probe.wait(5)
    return probe.exit_code == 0


def _try_start(
    argv: list[str],
    *,
    children: ChildProcesses,
    env: dict[str, str],
    on_event: Callable[[str, dict[str, Any], str], None],
    deadline: Deadline,
) -> tuple[Chromium | None, str]:
    log_path = os.path.join(env["HOME"], ".config", "moorage-chromium", "stderr.log")
    commands_read, commands = os.pipe()
    answers, answers_write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fds = {0: null, 1: log, 2: log, COMMANDS_FD: commands_read, ANSWERS_FD: answers_write}
        child = children.spawn(argv, env=env, fds=fds)
    except OSError as error:
        os.close(commands)
        os.close(answers)
        return None, str(error)
    finally:
        for fd in (commands_read, answers_write, null, log):
            os.close(fd)
    chromium = Chromium(child, Cdp(commands=commands, answers=answers, on_event=on_event))
    try:
        chromium.cdp.call("Browser.getVersion", deadline.within(START_SECONDS))
    except (CdpClosed, CdpError, CdpTimeout) as error:
        child.signal_group(signal.SIGKILL)
        child.wait(2)
        return None, _last_log_lines(log_path) or f"no answer ({type(error).__name__})"
    return chromium, ""


def _machine_flags(profile: str, screen: Screen, sandboxed: bool) -> list[str]:
    flags = [f"--user-data-dir={profile}", f"--window-size={screen.width},{screen.height}"]
    if not sandboxed:
        # --test-type hides the bar that warns about --no-sandbox.
        flags += ["--no-sandbox", "--test-type"]
    if not _has_shared_memory():
        flags.append("--disable-dev-shm-usage")
    return flags


def _has_shared_memory() -> bool:
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108 - the place Chromium uses
    except FileNotFoundError:
        return False
    return os.access("/dev/shm", os.W_OK) and space.f_bavail * space.f_frsize >= LEAST_SHM_BYTES  # noqa: S108


def _environment(env: dict[str, str], paths: Paths) -> dict[str, str]:
    # Without this address Chromium looks for a session bus and starts one.
    return env | {"DBUS_SESSION_BUS_ADDRESS": "disabled:", "XDG_CONFIG_HOME": os.path.join(paths.home, ".config")}


def _remove_locks(profile: str) -> None:
    """Remove the locks of a browser that was killed. No other browser uses the profile, and ours is not running."""
    for name in ("SingletonLock", "SingletonCookie", "SingletonSocket"):
        try:
            os.unlink(os.path.join(profile, name))
        except FileNotFoundError:
            continue


def _last_log_lines(log_path: str) -> str:
    with open(log_path, "rb") as log:
        lines = log.read(65536).decode("utf-8", "replace").strip().splitlines()
    return " / ".join(lines[-3:])[:500]

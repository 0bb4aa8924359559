"""The browser functions, with a real Chromium on a real X server that opens real pages."""

from __future__ import annotations

import base64
import io
import os
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sandbox.box.pages import Site
from sandbox.box.running import Refused, RunningBox, is_running, memory_of, processes_with, running_box
from support.waiting import HANG_SECONDS, block_until


def element(result: dict[str, Any], text: str) -> int:
    """The index of the element whose line ends in `text`."""
    return int(next(it for it in result["elements"] if it.endswith(text)).split(":")[0])


def click(box: RunningBox, seen: dict[str, Any], text: str, *, timeout: float = HANG_SECONDS) -> dict[str, Any]:
    return box.call("browser_click", index=element(seen, text), timeout=timeout)


def picture(result: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(result["screenshot_png"])))


def open_page(box: RunningBox, site: Site, path: str, *, timeout: float = HANG_SECONDS) -> dict[str, Any]:
    return box.call("browser_navigate", url=site.url(path), timeout=timeout)


def test_a_page_is_returned_as_text_elements_and_picture(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/plain")
    assert (seen["url"], seen["title"]) == (site.url("/plain"), "Plain")
    assert seen["content"] == "A heading\n\nSome text"
    image = picture(seen)
    assert image.format == "PNG"
    assert image.width > 1200
    assert 800 < image.height < 1024
    again = browser_box.call("browser_view")
    assert (again["url"], again["content"]) == (seen["url"], seen["content"])


def test_a_form_is_filled_with_real_keys_and_sent(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/form")
    assert seen["elements"] == [
        '0: <input name="name"> Name: old',
        '1: <select name="colour"> [0: red (selected), 1: green]',
        "2: <button> Send",
    ]
    typed = browser_box.call("browser_input", index=0, text="Zoë & 你好", press_enter=False)
    assert typed["elements"][0].endswith("Zoë & 你好")
    assert "log: key Z" in browser_box.call("browser_console_view")["console"]
    chosen = browser_box.call("browser_select_option", index=1, option=1)
    assert chosen["elements"][1].endswith("[0: red, 1: green (selected)]")
    sent = click(browser_box, chosen, "Send")
    assert sent["title"] == "Sent"
    assert sent["content"] == "name=Zo%C3%AB+%26+%E4%BD%A0%E5%A5%BD&colour=green"


def test_enter_sends_and_the_keyboard_goes_back(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    open_page(browser_box, site, "/form")
    sent = browser_box.call("browser_input", index=0, text="x", press_enter=True)
    assert sent["url"].endswith("/sent?name=x&colour=red")
    assert browser_box.call("browser_press_key", key="Alt+ArrowLeft")["title"] == "Form"
    assert browser_box.call("browser_press_key", key="F5")["title"] == "Form"


def test_keys_reach_the_page_with_their_modifiers(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/form")
    browser_box.call("browser_click", index=0)
    browser_box.call("browser_press_key", key="Control+a")
    browser_box.call("browser_press_key", key="Shift+b")
    browser_box.call("browser_press_key", key="Space")
    browser_box.call("browser_press_key", key="+")
    value = browser_box.call("browser_console_exec", javascript="document.querySelector('input').value")
    assert value["result"] == '"B +"'
    for key in ("NoSuchKey", "Hyper+a", ""):
        with pytest.raises(Refused) as refused:
            browser_box.call("browser_press_key", key=key)
        assert refused.value.code == "invalid"


def test_a_click_hits_by_index_and_by_coordinates(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    assert not [it for it in seen["elements"] if "Hidden" in it or "Disabled" in it]
    assert click(browser_box, seen, "Click me")["title"] == "clicked"
    open_page(browser_box, site, "/buttons")
    script = "const r = document.querySelector('button').getBoundingClientRect(); [r.x + 5, r.y + 5]"
    x, y = map(float, browser_box.call("browser_console_exec", javascript=script)["result"].strip("[]").split(","))
    assert browser_box.call("browser_click", coordinate_x=x, coordinate_y=y)["title"] == "clicked"
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_click", coordinate_x=x)
    assert refused.value.code == "invalid"


def test_elements_that_are_gone_are_not_clicked(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_click", index=len(seen["elements"]))
    assert refused.value.code == "not_found"
    assert "browser_view" in refused.value.message
    last = element(seen, "Next")
    browser_box.call("browser_console_exec", javascript="document.body.lastElementChild.remove()")
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_select_option", index=last + 1, option=0)
    assert refused.value.code == "not_found"


def test_dialogs_are_answered_and_named_in_the_result(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    answered = click(browser_box, seen, "Ask")
    assert answered["title"] == "told false"
    assert "dialog (alert), which was confirmed: 'Watch out'" in answered["content"]
    assert "dialog (confirm), which was declined: 'Sure?'" in answered["content"]
    assert "dialog" not in browser_box.call("browser_view")["content"]


def test_a_new_tab_becomes_current_and_closing_it_returns_to_the_old_one(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    popup = click(browser_box, seen, "Open")
    assert popup["title"] == "Popup"
    assert "newest of 2 tabs" in popup["content"]
    assert click(browser_box, popup, "Close")["title"] == "Buttons"


def test_a_navigation_that_a_click_causes_is_waited_for(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    assert click(browser_box, seen, "Leave")["content"] == "A heading\n\nSome text"


def test_elements_in_frames_and_shadow_roots_are_listed(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/nested")
    assert click(browser_box, seen, "In the frame")["title"] == "frame"
    assert click(browser_box, seen, "In the shadow")["title"] == "shadow"


def test_a_file_is_given_to_a_file_field(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/nested")
    (browser_box.workspace / "data.csv").write_text("a,b")
    field = element(seen, '<input type="file">')
    given = browser_box.call("browser_input", index=field, text="data.csv", press_enter=False)
    assert given["title"] == "data.csv"
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_input", index=field, text="missing.csv", press_enter=False)
    assert refused.value.code == "not_found"
    assert "asked for a file" in browser_box.call("browser_click", index=field)["content"]


def test_a_long_page_is_scrolled_and_bounded(browser_box: RunningBox, site: Site) -> None:
    top = open_page(browser_box, site, "/long")
    assert len(top["content"]) < 21_000
    assert "characters left out" in top["content"]
    assert len(top["elements"]) == 201
    assert "2800 more elements" in top["elements"][-1]
    assert "[Scrolled to pixel 0 of" in top["content"]
    assert "[Scrolled to pixel 0 of" not in browser_box.call("browser_scroll_down")["content"]
    bottom = browser_box.call("browser_scroll_down", to_bottom=True)
    assert len(bottom["elements"]) < 200
    assert picture(bottom).tobytes() != picture(top).tobytes()
    assert "[Scrolled to pixel 0 of" in browser_box.call("browser_scroll_up", to_top=True)["content"]


SCRIPTS = {
    "({a: [1, null, 'ä']})": '{"a": [1, null, "ä"]}',
    "undefined": "undefined",
    "await new Promise((done) => setTimeout(() => done(7), 20))": "7",
    "new Promise((done) => setTimeout(() => done({b: 1}), 20))": '{"b": 1}',
    "window": "Window",
    "1n": "1n",
    "let twice = 1; twice": "1",
    "let twice = 2; twice": "2",
    "throw new Error('no')": "Uncaught Error: no\n    at <anonymous>:1:7",
    "Promise.reject(5)": "Uncaught (in promise) 5",
    "what ever": "Uncaught SyntaxError: Unexpected identifier 'ever'",
}


def test_scripts_give_their_value_or_what_they_threw(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    for script, shown in SCRIPTS.items():
        assert browser_box.call("browser_console_exec", javascript=script)["result"] == shown, script
    long = browser_box.call("browser_console_exec", javascript="'x'.repeat(1e6)")["result"]
    assert len(long) < 21_000


@pytest.mark.parametrize("script", ["while (true);", "new Promise(() => 0)"])
def test_a_script_without_end_is_stopped(browser_box: RunningBox, site: Site, script: str) -> None:
    open_page(browser_box, site, "/plain")
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_console_exec", javascript=script, timeout=9)
    assert refused.value.code == "timeout"
    assert browser_box.call("browser_view")["title"] == "Plain"


def test_the_console_is_kept(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    script = "console.log('one', {a: 1}, [2]); console.error('two'); setTimeout(() => { throw Error('three') })"
    browser_box.call("browser_console_exec", javascript=script)
    console = browser_box.call("browser_console_view", max_lines=3)["console"]
    assert console[0] == "log: one Object {a: 1} Array(1) {0: 2}"
    assert console[1] == "error: two"
    assert console[2].startswith("exception: Uncaught Error: three")


ADDRESSES = {
    "javascript:alert(1)": "invalid",
    "chrome://settings": "invalid",
    "http://": "invalid",
    "http://[": "invalid",
    "file:///etc/passwd": "forbidden",
    "http://does-not-exist.invalid/": "browser_failed",
    "127.0.0.1:9": "browser_failed",
}


@pytest.mark.parametrize(("url", "code"), ADDRESSES.items(), ids=ADDRESSES)
def test_addresses_that_cannot_be_opened_are_refused(browser_box: RunningBox, url: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_navigate", url=url)
    assert refused.value.code == code


def test_an_error_of_the_network_is_named(browser_box: RunningBox) -> None:
    with pytest.raises(Refused, match="net::ERR_NAME_NOT_RESOLVED"):
        browser_box.call("browser_navigate", url="http://does-not-exist.invalid/")


def test_files_below_home_and_data_are_opened(browser_box: RunningBox, site: Site) -> None:
    (browser_box.workspace / "report ü.html").write_text("<title>Report</title>Mine")
    url = f"file://{browser_box.workspace}/report ü.html"
    assert browser_box.call("browser_navigate", url=url)["content"] == "Mine"
    assert browser_box.call("browser_navigate", url="data:text/html,<title>D</title>d")["title"] == "D"
    assert browser_box.call("browser_navigate", url=f"127.0.0.1:{site.port}/plain")["title"] == "Plain"


def test_a_server_that_does_not_answer_is_given_up(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_navigate", url=site.url("/hangs"), timeout=9)
    assert refused.value.code == "timeout"
    assert browser_box.call("browser_view")["title"] == "Plain"


def test_a_download_lands_in_the_workspace(browser_box: RunningBox, site: Site) -> None:
    result = open_page(browser_box, site, "/download")
    saved = browser_box.workspace / "downloads" / "report.bin"
    assert f"Downloaded {saved} (100000 bytes)" in result["content"]
    assert saved.stat().st_size == 100_000


def test_a_page_script_without_end_is_stopped_and_the_result_says_so(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/buttons")
    spun = click(browser_box, seen, "Spin")
    assert "did not end and was stopped" in spun["content"]
    assert click(browser_box, spun, "Click me")["title"] == "clicked"


def test_a_page_that_opens_dialogs_without_end_is_closed(browser_box: RunningBox, site: Site) -> None:
    answer = browser_box.answer_to("browser_navigate", url=site.url("/dialogs"))
    if answer["ok"]:
        assert "one dialog after another" in answer["result"]["content"]
    assert open_page(browser_box, site, "/plain")["title"] == "Plain"


def test_a_page_cannot_keep_the_browser_from_leaving_it(browser_box: RunningBox, site: Site) -> None:
    seen = open_page(browser_box, site, "/leaving")
    click(browser_box, seen, "Do nothing")
    assert click(browser_box, seen, "Print")["title"] == "Leaving"
    assert open_page(browser_box, site, "/loop", timeout=10)["content"].endswith("Before")
    assert open_page(browser_box, site, "/plain")["title"] == "Plain"


def test_a_huge_value_is_refused_and_the_box_stays_small(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_console_exec", javascript="'x'.repeat(5e7)")
    assert refused.value.code == "browser_failed"
    assert memory_of(browser_box) < 160 * 1024 * 1024


def test_shell_and_files_do_not_wait_for_the_browser(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    slow = threading.Thread(
        target=lambda: browser_box.answer_to("browser_navigate", url=site.url("/hangs"), timeout=10)
    )
    slow.start()
    assert browser_box.output("echo quick") == "quick"
    assert slow.is_alive()
    with pytest.raises(Refused) as refused:
        browser_box.call("browser_view", timeout=0.1)
    assert refused.value.code == "busy"
    slow.join(HANG_SECONDS)


def test_a_crashed_page_is_replaced_and_the_result_says_so(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    renderers = [pid for pid in processes_with(str(browser_box.home)) if "--type=renderer" in command_line(pid)]
    for pid in renderers:
        with suppress(ProcessLookupError):  # Chromium may end a renderer that it keeps in reserve
            os.kill(pid, signal.SIGKILL)
    block_until(lambda: not any(map(is_running, renderers)), "the page's process is gone")
    # A call may come before the event of the crash. It gets an error about the crash too.
    answer = browser_box.answer_to("browser_view")
    if not answer["ok"]:
        assert "crashed" in answer["error"]["message"]
        answer = browser_box.answer_to("browser_view")
    assert "crashed" in answer["result"]["content"]
    assert open_page(browser_box, site, "/plain")["title"] == "Plain"


def test_a_killed_browser_is_restarted_and_the_result_says_so(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    os.kill(browser_of(browser_box), signal.SIGKILL)
    block_until(lambda: not processes_with(f"--user-data-dir={browser_box.home}"), "Chromium is gone")
    seen = browser_box.call("browser_view")
    assert seen["url"] == "about:blank"
    assert "The browser had ended and was restarted" in seen["content"]
    assert open_page(browser_box, site, "/plain")["title"] == "Plain"


def test_a_restart_is_another_browser(browser_box: RunningBox, site: Site) -> None:
    open_page(browser_box, site, "/plain")
    before = browser_of(browser_box)
    assert browser_box.call("browser_restart", url=site.url("/form"))["title"] == "Form"
    assert browser_of(browser_box) != before
    assert not is_running(before)


def test_without_a_screen_the_error_names_the_reason() -> None:
    with tempfile.TemporaryDirectory(prefix="mb") as path, running_box(Path(path), display=":9999") as box:
        with pytest.raises(Refused) as refused:
            box.call("browser_view", timeout=1)
        assert refused.value.code == "browser_failed"
        assert ":9999" in refused.value.message
        assert box.output("echo fine") == "fine"


def test_the_browser_ends_with_the_box(display: str) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="mb", ignore_cleanup_errors=True) as path,
        running_box(Path(path), display=display) as box,
    ):
        box.call("browser_view")
        assert processes_with(f"--user-data-dir={box.home}")
        assert box.stop() == 0
        assert processes_with(f"--user-data-dir={box.home}") == []


def command_line(pid: int) -> str:
    """The words of a process's command line; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def browser_of(box: RunningBox) -> int:
    mine = processes_with(f"--user-data-dir={box.home}")
    return next(pid for pid in mine if "--type=" not in command_line(pid))

"""The client of the Chrome DevTools Protocol, on pipes without a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from moorage_sandbox.box.browser.cdp import Cdp, CdpError
from moorage_sandbox.box.shared.deadline import Deadline
from support.waiting import HANG_SECONDS


@pytest.fixture
def cdp() -> Iterator[Cdp]:
    """A client of a browser that reads commands and never answers."""
    commands_read, commands = os.pipe()
    answers, answers_write = os.pipe()
    yield Cdp(commands=commands, answers=answers, on_event=lambda *_: None)
    os.close(answers_write)
    os.close(commands_read)


def test_a_call_to_a_page_that_has_crashed_is_refused_without_a_wait(cdp: Cdp) -> None:
    """The news of the crash may come after a caller chose the page and before its call is sent."""
    cdp.abandon("crashed")
    with pytest.raises(CdpError, match="the page crashed"):
        cdp.call("Runtime.evaluate", Deadline(HANG_SECONDS), session="crashed")

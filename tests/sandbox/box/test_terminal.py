"""The conversion of terminal output to text, and its limits for hostile input."""

from __future__ import annotations

import random

import pytest

from moorage_sandbox.box.shell.output import (
    HEAD_BYTES,
    HEAD_CHARS,
    TAIL_BYTES,
    TAIL_CHARS,
    Output,
)
from moorage_sandbox.box.shell.terminal import to_plain_text

SCREENS = {
    "plain": ("a\tb\nc", "a\tb\nc"),
    "line ends of DOS": ("a\r\nb\r\n", "a\nb\n"),
    "overwritten": ("downloading\rdone", "doneloading"),
    "overwritten and erased": ("downloading\r\x1b[Kdone", "done"),
    "backspace": ("abx\bc", "abc"),
    "colours": ("\x1b[1;38;5;3mbold\x1b[0m", "bold"),
    "title": ("\x1b]0;title\x07text", "text"),
    "link": ("\x1b]8;;http://a/\x1b\\text\x1b]8;;\x1b\\", "text"),
    "two bars redrawn": ("one 1%\ntwo 1%\x1b[A\rone 9%\ntwo 9%", "one 9%\ntwo 9%"),
    "previous lines": ("a\nb\nc\x1b[2Fx", "x\nb\nc"),
    "cleared screen": ("old\nold\x1b[2J\x1b[Hnew", "new"),
    "erased below": ("a\nb\nc\x1b[2A\r\x1b[J", ""),
    "column": ("abcdef\x1b[3Gx", "abxdef"),
    "position": ("abc\ndef\x1b[1;2Hx", "axc\ndef"),
    "deleted and inserted": ("abcd\r\x1b[2P\x1b[@x", "xcd"),
    "blanked": ("abcd\r\x1b[2Xx", "x cd"),
    "other screen and back": ("before\n\x1b[?1049hediting\x1b[2J\x1b[Hmore\x1b[?1049lafter", "before\nafter"),
    "other screen still on": ("before\x1b[?1049hediting", "editing"),
    "bell and NUL": ("a\x07b\x00c", "abc"),
    "form feed": ("a\x0cb", "a\nb"),
    "incomplete sequence": ("a\x1b[3", "a"),
    "wide characters": ("你好\r\n世界", "你好\n世界"),
    "spaces left of text": ("\x1b[5Ga", "    a"),
}


@pytest.mark.parametrize(("written", "text"), SCREENS.values(), ids=SCREENS)
def test_text_is_what_the_terminal_shows(written: str, text: str) -> None:
    assert to_plain_text(written.encode()) == text


def test_a_run_of_undecodable_bytes_becomes_one_replacement_character() -> None:
    assert to_plain_text(b"a\xff\xfe\xfd\xfcb") == "a\ufffdb"


GROWING = {
    "far to the right": "\x1b[999999999C x",
    "far down": "\x1b[999999999B\n",
    "to a corner": "\x1b[999;999H.",
    "inserting": "\x1b[999999@",
    "other screen": "\x1b[?1049h\x1b[?1049l",
    "never closed": "\x1bP",
}


@pytest.mark.parametrize("piece", GROWING.values(), ids=GROWING)
def test_a_short_sequence_cannot_make_a_large_text(piece: str) -> None:
    assert len(to_plain_text((piece * 2000).encode())) < 4_000_000


def test_random_bytes_always_become_text() -> None:
    generator = random.Random(7)
    alphabet = b"\x1b[]0123456789;?ABCDEFGHJKPX@hlmr\r\n\b\x07abc\xff"
    for _ in range(300):
        data = bytes(generator.choice(alphabet) for _ in range(500))
        assert not set(to_plain_text(data)) & set("\x1b\r\b\x07")


def test_a_long_output_keeps_its_beginning_and_end() -> None:
    output = Output()
    for n in range(200_000):
        output.append(b"line %d\n" % n)
    text, truncated = output.render()
    assert truncated
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 199998\nline 199999\n")
    assert "bytes left out" in text
    assert len(text) < HEAD_CHARS + TAIL_CHARS + 100


def test_an_output_of_the_largest_size_is_not_cut() -> None:
    output = Output()
    output.append(b"x" * (HEAD_CHARS + TAIL_CHARS))
    assert output.render() == ("x" * (HEAD_CHARS + TAIL_CHARS), False)


def test_a_progress_bar_does_not_push_the_text_out() -> None:
    output = Output()
    output.append(b"begin\n")
    while_drawing = HEAD_BYTES + TAIL_BYTES - 1000
    output.append(b"\r 50% ####" * (while_drawing // 10))
    output.append(b"\r\nend\n")
    assert output.render() == ("begin\n 50% ####\nend\n", False)

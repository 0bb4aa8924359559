"""Translates key names such as "Enter" or "Control+Shift+a" to key events of the DevTools Protocol."""

from __future__ import annotations

from typing import Any, NamedTuple

from moorage_sandbox.box.shared.errors import BoxError

MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}


class Key(NamedTuple):
    """`code` is the position on a US keyboard. `number` is the virtual key code, which many pages still read."""

    name: str
    code: str
    number: int
    text: str = ""


NAMED = {
    key.name.lower(): key
    for key in (
        Key("Enter", "Enter", 13, "\r"),
        Key("Tab", "Tab", 9),
        Key("Escape", "Escape", 27),
        Key("Backspace", "Backspace", 8),
        Key("Delete", "Delete", 46),
        Key("Insert", "Insert", 45),
        Key("Home", "Home", 36),
        Key("End", "End", 35),
        Key("PageUp", "PageUp", 33),
        Key("PageDown", "PageDown", 34),
        Key("ArrowLeft", "ArrowLeft", 37),
        Key("ArrowUp", "ArrowUp", 38),
        Key("ArrowRight", "ArrowRight", 39),
        Key("ArrowDown", "ArrowDown", 40),
        Key("CapsLock", "CapsLock", 20),
        Key("ContextMenu", "ContextMenu", 93),
        Key("Alt", "AltLeft", 18),
        Key("Control", "ControlLeft", 17),
        Key("Meta", "MetaLeft", 91),
        Key("Shift", "ShiftLeft", 16),
        *(Key(f"F{n}", f"F{n}", 111 + n) for n in range(1, 13)),
    )
}

ALIASES = {
    "return": "enter",
    "esc": "escape",
    "del": "delete",
    "ins": "insert",
    "left": "arrowleft",
    "up": "arrowup",
    "right": "arrowright",
    "down": "arrowdown",
    "pgup": "pageup",
    "pgdn": "pagedown",
    "ctrl": "control",
    "cmd": "meta",
    "command": "meta",
    "option": "alt",
}

PUNCTUATION = {
    " ": ("Space", 32),
    ";": ("Semicolon", 186),
    "=": ("Equal", 187),
    ",": ("Comma", 188),
    "-": ("Minus", 189),
    ".": ("Period", 190),
    "/": ("Slash", 191),
    "`": ("Backquote", 192),
    "[": ("BracketLeft", 219),
    "\\": ("Backslash", 220),
    "]": ("BracketRight", 221),
    "'": ("Quote", 222),
}
SHIFTED = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./", strict=True))


def parse_key(text: str) -> tuple[Key, int]:
    """Return the key, and the held modifiers as the bits of the protocol. Raises `invalid` for an unknown name."""
    *held, last = ["+"] if text == "+" else text.replace("++", "+Plus").split("+")
    modifiers = 0
    for name in held:
        modifier = _find_named_key(name)
        if modifier is None or modifier.name not in MODIFIERS:
            raise BoxError("invalid", f"{name!r} is not a modifier. Use {', '.join(MODIFIERS)}, as in Control+a.")
        modifiers |= MODIFIERS[modifier.name]
    if last == "Plus" or last.lower() == "space":
        key: Key | None = key_for_character("+" if last == "Plus" else " ")
    else:
        key = _find_named_key(last)
    if key is None and len(last) == 1:
        key = key_for_character(last)
    if key is not None and len(key.name) == 1 and modifiers & MODIFIERS["Shift"]:
        key = key_for_character(_shift(key.name))
    if key is None:
        names = ", ".join(it.name for it in NAMED.values())
        raise BoxError("invalid", f"{text!r} is not a key. Use a character or one of {names}, Space.")
    return key, modifiers


def key_for_character(text: str) -> Key:
    """Return the key that types a character. A character that no key types gets an empty code."""
    base = SHIFTED.get(text, text.lower())
    if base.isascii() and base.isalpha():
        return Key(text, f"Key{base.upper()}", ord(base.upper()), text)
    if base.isascii() and base.isdigit():
        return Key(text, f"Digit{base}", ord(base), text)
    code, number = PUNCTUATION.get(base, ("", 0))
    return Key(text, code, number, text)


def key_events(key: Key, modifiers: int) -> list[dict[str, Any]]:
    """Return the parameters of Input.dispatchKeyEvent for pressing and releasing the key."""
    if len(key.name) == 1 and (key.name in SHIFTED or key.name.isupper()):
        modifiers |= MODIFIERS["Shift"]
    common: dict[str, Any] = {
        "key": key.name,
        "code": key.code,
        "windowsVirtualKeyCode": key.number,
        "modifiers": modifiers,
    }
    down = common | {"type": "rawKeyDown"}
    # With Control, Alt or Meta a key is a command and types no text.
    if key.text and not modifiers & ~MODIFIERS["Shift"]:
        down |= {"type": "keyDown", "text": key.text, "unmodifiedText": key.text}
    return [down, common | {"type": "keyUp"}]


def _shift(text: str) -> str:
    """Return the character that a key types together with Shift."""
    return next((upper for upper, lower in SHIFTED.items() if lower == text), text.upper())


def _find_named_key(name: str) -> Key | None:
    lowered = name.lower()
    return NAMED.get(ALIASES.get(lowered, lowered))

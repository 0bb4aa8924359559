"""SKILL.md: standard fields are checked like the specification's own validator, and our own fields by our rules."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from skills_ref.validator import validate

from moorage_api.errors import SkillRefusedError
from moorage_api.skills.bundles.manifest import Manifest, parse_manifest, skill_id_of, slug_of

LONG = "a" * 64


def document(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", "", "Body."])


def simple(name: str, *more: str) -> str:
    return document(f"name: {name}", "description: Does it.", *more)


CASES: dict[str, tuple[str, str]] = {
    "plain": ("pdf", simple("pdf")),
    "digits": ("a1-2b", simple("a1-2b")),
    "number": ("123", simple("123")),
    "longest_name": (LONG, simple(LONG)),
    "too_long_name": (LONG + "a", simple(LONG + "a")),
    "upper_case": ("PDF", simple("PDF")),
    "leading_hyphen": ("-pdf", simple("-pdf")),
    "trailing_hyphen": ("pdf-", simple("pdf-")),
    "two_hyphens": ("a--b", simple("a--b")),
    "underscore": ("a_b", simple("a_b")),
    "dot": ("a.b", simple("a.b")),
    "other_letters": ("рисунок", simple("рисунок")),
    "composed": ("café", simple("cafe\u0301")),
    "other_folder": ("other", simple("pdf")),
    "no_name": ("pdf", document("description: x")),
    "empty_name": ("pdf", document("name: ''", "description: x")),
    "no_description": ("pdf", document("name: pdf")),
    "empty_description": ("pdf", document("name: pdf", "description: ' '")),
    "longest_description": ("pdf", document("name: pdf", f"description: {'d' * 1024}")),
    "too_long_description": ("pdf", document("name: pdf", f"description: {'d' * 1025}")),
    "all_fields": (
        "pdf",
        simple("pdf", "license: MIT", "compatibility: Python 3", "allowed-tools: Bash Read", "metadata:", "  a: b"),
    ),
    "longest_compatibility": ("pdf", simple("pdf", f"compatibility: {'c' * 500}")),
    "too_long_compatibility": ("pdf", simple("pdf", f"compatibility: {'c' * 501}")),
    "unknown_field": ("pdf", simple("pdf", "author: me")),
    "no_frontmatter": ("pdf", "# PDF"),
    "not_closed": ("pdf", "---\nname: pdf\ndescription: x\n"),
    "bad_yaml": ("pdf", document("name: [pdf", "description: x")),
    "a_list": ("pdf", document("- name", "- pdf")),
    "twice": ("pdf", simple("pdf", "name: pdf")),
    "an_alias": ("pdf", document("name: &a pdf", "description: *a")),
    "a_tag": ("pdf", document("name: pdf", "description: !!python/object:os.system x")),
}


def is_accepted(folder: str, text: str) -> bool:
    try:
        parse_manifest(text, folder=folder, overrides={})
    except SkillRefusedError:
        return False
    return True


@pytest.mark.parametrize(("folder", "text"), CASES.values(), ids=CASES)
def test_standard_fields_are_accepted_or_refused_like_the_reference_validator(
    tmp_path: Path, folder: str, text: str
) -> None:
    directory = tmp_path / folder
    directory.mkdir()
    (directory / "SKILL.md").write_text(text)
    assert is_accepted(folder, text) == (validate(directory) == [])


def manifest(*lines: str, **overrides: object) -> Manifest:
    return parse_manifest(simple("pdf", *lines), folder="pdf", overrides=overrides)


@pytest.mark.parametrize(
    "lines",
    [
        ("metadata:", "  entry.command: python3 run.py", "  entry.exec_dir: /home/ubuntu/x"),
        ("metadata:", "  entry:", "    command: python3 run.py", "    exec_dir: /home/ubuntu/x"),
        ("entry:", "  command: python3 run.py", "  exec_dir: /home/ubuntu/x"),
    ],
    ids=["dotted", "nested", "top"],
)
def test_our_own_fields_are_read_from_every_place(lines: tuple[str, ...]) -> None:
    read = manifest(*lines)
    assert (read.entry.command, read.exec_dir("pdf--1")) == ("python3 run.py", "/home/ubuntu/x")


def test_missing_fields_have_defaults() -> None:
    read = manifest()
    assert (read.version, read.runtime_type, read.entry.command) == ("0.1.0", "native", "")
    assert read.exec_dir("pdf--0a1b2c3d") == "/home/ubuntu/workspace/.skills/pdf--0a1b2c3d"


def test_values_are_not_converted_to_numbers_or_booleans() -> None:
    read = manifest("license: no", "metadata:", "  version: 1.10", "  tools: act, look")
    assert (read.license, read.version, read.tools) == ("no", "1.10", ["act", "look"])


def test_the_request_overrides_the_fields_of_skill_md() -> None:
    read = manifest("metadata:", "  version: '1'", version="2", entry={"command": "make"})
    assert (read.version, read.entry.command) == ("2", "make")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("metadata:", "  runtime_type: jvm"), "bad_runtime"),
        (("metadata:", "  runtime_type: mcp"), "bad_runtime"),
        (("metadata: text",), "bad_frontmatter"),
        (("metadata:", "  entry.command: 'echo \"'"), "bad_entry"),
        (("metadata:", "  entry.exec_dir: /etc"), "bad_entry"),
        (("metadata:", "  entry.exec_dir: /home/ubuntu/../../etc"), "bad_entry"),
        (("metadata:", "  entry.exec_dir: /home/ubuntu-of-others"), "bad_entry"),
        (("metadata:", "  entry.command: |", "    a", "    b"), "bad_entry"),
        (("metadata:", "  version: [1]"), "bad_field"),
        (("metadata:", f"  a: {'x' * 20_000}"), "bad_frontmatter"),
        (("metadata: " + "{a: " * 3000,), "bad_frontmatter"),
    ],
)
def test_invalid_own_fields_are_refused_with_the_reason(lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SkillRefusedError) as error:
        manifest(*lines)
    assert error.value.reason == reason


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? "])
def test_a_deeply_nested_frontmatter_is_refused_quickly(opening: str) -> None:
    """PyYAML would need minutes for these few kilobytes and block all other threads."""
    began = time.process_time()
    with pytest.raises(SkillRefusedError) as error:
        manifest("metadata: " + opening * (15_000 // len(opening)))
    assert error.value.reason == "bad_frontmatter"
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["policy", "install"])
def test_a_name_that_conflicts_with_an_endpoint_is_refused(name: str) -> None:
    with pytest.raises(SkillRefusedError) as error:
        parse_manifest(simple(name), folder=name, overrides={})
    assert error.value.reason == "reserved_name"


def test_a_slug_equals_an_ascii_name() -> None:
    assert slug_of("pdf-tools") == "pdf-tools"
    assert slug_of("café") != slug_of("cafe")
    assert slug_of("рисунок").startswith("skill-")
    assert len(slug_of("é" * 64)) <= 64
    assert skill_id_of("pdf", "/srv/skills/pdf") == "pdf--d6e80c21"

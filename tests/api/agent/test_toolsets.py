"""Toolsets: names and parameters as the contract fixes them, results for the model and event contents for clients."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from moorage_api.agent.ports import GateResult, ToolCall, ToolResult
from moorage_api.agent.toolsets import default_toolsets
from moorage_api.agent.toolsets.search import SearchToolset
from moorage_api.agent.toolsets.user_functions import ASK, NOTIFY
from moorage_api.errors import FencedError, UnavailableError
from support.agent import Log, MemoryAttachments, MemoryGate
from support.waiting import HANG_SECONDS

CONTRACT = """
shell_execute(session_id, exec_dir, command) shell_read_output(session_id) shell_wait_process(session_id, seconds?)
shell_write_input(session_id, input_text, press_enter) shell_kill_process(session_id)
read_file(filepath, start_line?, end_line?, max_length?)
write_file(filepath, content, append?, leading_newline?, trailing_newline?)
replace_in_file(filepath, old_str, new_str) search_in_file(filepath, regex) find_files(dir_path, glob_pattern)
browser_view() browser_navigate(url) browser_restart(url) browser_click(index?, coordinate_x?, coordinate_y?)
browser_input(text, press_enter, index?, coordinate_x?, coordinate_y?) browser_move_mouse(coordinate_x, coordinate_y)
browser_press_key(key) browser_select_option(index, option) browser_scroll_up(to_top?) browser_scroll_down(to_bottom?)
browser_console_exec(javascript) browser_console_view(max_lines?)
browser_screenshot()
search_web(query, date_range?) message_notify_user(text)
message_ask_user(text, attachments?, suggest_user_takeover?)
"""
"""Names and parameters as the wire document fixes them, and the screenshot beside them; `?` is optional."""


def test_names_and_parameters_are_those_of_the_contract() -> None:
    toolsets = default_toolsets(MemoryGate(Log()), MemoryAttachments(), max_search_results=5)
    functions = [function for toolset in toolsets for function in toolset.functions()] + [NOTIFY, ASK]
    signatures = []
    for function in functions:
        required = function.parameters["required"]
        names = [name + ("" if name in required else "?") for name in function.parameters["properties"]]
        signatures.append(f"{function.name}({', '.join(names)})")
        assert function.description
        assert all(item.get("description") for item in function.parameters["properties"].values())
    assert signatures == " ".join(CONTRACT.split()).replace(") ", ")|").split("|")


async def call(
    function: str,
    args: Mapping[str, Any],
    answer: GateResult,
    *,
    attachments: MemoryAttachments | None = None,
) -> ToolResult:
    gate = MemoryGate(Log(), answer=lambda _function, _args: answer)
    for toolset in default_toolsets(gate, attachments or MemoryAttachments(), max_search_results=5):
        if function in [item.name for item in toolset.functions()]:
            return await toolset.call(ToolCall("17", "call00001", function, dict(args)))
    raise AssertionError(function)


def success(**result: Any) -> GateResult:
    return GateResult("succeeded", result)


RECORD = {"ps1": "$", "command": "ls", "output": "a"}

RESULTS: dict[str, tuple[str, dict[str, Any], GateResult, str, dict[str, Any]]] = {
    "a command that ended": (
        "shell_execute",
        {},
        success(output="a", status="exited", exit_code=2, console_records=[RECORD]),
        "a\n[exit code 2]",
        {"console": [RECORD]},
    ),
    "a command that is still running": (
        "shell_execute",
        {},
        success(output="a", status="running", console_records=[RECORD]),
        "a\n[still running]",
        {"console": [RECORD]},
    ),
    "a silent shell": ("shell_read_output", {}, success(output=""), "[no output]", {"console": []}),
    "a file": ("read_file", {}, success(content="x", total_lines=1, truncated=False), "x", {"content": "x"}),
    "part of a file": (
        "read_file",
        {},
        success(content="x", total_lines=9, truncated=True),
        "x\n[there is more]\n[9 lines in all]",
        {"content": "x\n[there is more]\n[9 lines in all]"},
    ),
    "a written file": (
        "write_file",
        {"content": "hello"},
        success(filepath="/home/ubuntu/a", size=5),
        "Written: /home/ubuntu/a (5 bytes)",
        {"content": "hello"},
    ),
    "replacements": (
        "replace_in_file",
        {},
        success(filepath="/home/ubuntu/a", replacements=2),
        "Replaced 2 times in /home/ubuntu/a",
        {"content": "Replaced 2 times in /home/ubuntu/a"},
    ),
    "matches": (
        "search_in_file",
        {},
        success(matches=[{"line": 3, "text": "x"}], truncated=True),
        "3: x\n[there is more]",
        {"content": "3: x\n[there is more]"},
    ),
    "no matches": ("search_in_file", {}, success(matches=[]), "No line matches.", {"content": "No line matches."}),
    "files": ("find_files", {}, success(files=["/a", "/b"]), "/a\n/b", {"content": "/a\n/b"}),
    "no files": ("find_files", {}, success(files=[]), "No files found.", {"content": "No files found."}),
    "a script": (
        "browser_console_exec",
        {},
        success(url="http://a", title="A", result="42"),
        "A (http://a)\nResult: 42",
        {"result": "A (http://a)\nResult: 42"},
    ),
    "a failure": (
        "read_file",
        {},
        GateResult("failed", {}, "not_found", "There is no such file"),
        "Failed (not_found): There is no such file",
        {"result": "There is no such file"},
    ),
}


@pytest.mark.parametrize(("function", "args", "answer", "text", "content"), RESULTS.values(), ids=RESULTS.keys())
async def test_a_result_becomes_a_text_for_the_model_and_content_for_clients(
    function: str, args: dict[str, Any], answer: GateResult, text: str, content: dict[str, Any]
) -> None:
    assert await call(function, args, answer) == ToolResult(answer.outcome, text, content)


async def test_the_model_gets_the_reason_of_an_unknown_outcome() -> None:
    result = await call("shell_execute", {}, GateResult("unknown", {}, "unknown", "The sandbox was restarted"))
    assert result.outcome == "unknown"
    assert "Outcome unknown" in result.text
    assert "The sandbox was restarted" in result.text


async def test_the_model_gets_a_page_with_its_elements_and_the_screenshot_is_stored() -> None:
    attachments = MemoryAttachments()
    answer = success(
        url="http://a",
        title="A",
        content="Hello",
        elements=["0: <a> Home"],
        screenshot_png=base64.b64encode(b"\x89PNG").decode(),
    )
    result = await call("browser_navigate", {"url": "http://a"}, answer, attachments=attachments)
    assert result.text == "A (http://a)\nElements:\n0: <a> Home\nPage:\nHello"
    assert list(result.content) == ["screenshot_key"]
    assert attachments.blobs[result.content["screenshot_key"]] == b"\x89PNG"


@pytest.mark.parametrize("picture", ["not base64!", "", None])
async def test_an_invalid_picture_is_left_out(picture: str | None) -> None:
    result = await call("browser_view", {}, success(url="http://a", title="A", screenshot_png=picture))
    assert (result.outcome, result.content) == ("succeeded", {})


class AwayAttachments(MemoryAttachments):
    """The object store is unavailable."""

    error: type[Exception] = UnavailableError

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        raise self.error("away")


async def test_a_call_succeeds_without_a_picture_when_the_object_store_is_unavailable() -> None:
    answer = success(url="http://a", title="A", screenshot_png=base64.b64encode(b"\x89PNG").decode())
    result = await call("browser_view", {}, answer, attachments=AwayAttachments())
    assert (result.outcome, result.content) == ("succeeded", {})


async def test_a_lost_lease_raises_fenced_error() -> None:
    attachments = AwayAttachments()
    attachments.error = FencedError
    with pytest.raises(FencedError):
        await call("read_file", {}, success(content="x" * 100_000), attachments=attachments)


async def test_a_long_output_is_stored_and_the_event_has_an_excerpt() -> None:
    attachments = MemoryAttachments()
    output = "head" + "x" * 200_000 + "tail"
    result = await call("read_file", {}, success(content=output), attachments=attachments)
    assert result.text == output, "the executor shortens it, after it has kept the whole as a file"
    assert len(result.content["content"]) < 20_000
    assert result.content["content"].startswith("head")
    assert result.content["content"].endswith("tail")
    assert attachments.blobs[result.content["content_key"]].decode() == output


async def test_a_long_console_output_is_stored_and_the_event_has_an_excerpt() -> None:
    attachments = MemoryAttachments()
    answer = success(output="x", status="exited", exit_code=0, console_records=[RECORD | {"output": "x" * 100_000}])
    result = await call("shell_execute", {}, answer, attachments=attachments)
    assert len(json.dumps(result.content)) < 64 * 1024
    assert len(attachments.blobs[result.content["output_key"]]) == 100_000


class Timed(MemoryGate):
    """Records the timeout of the last call."""

    timeout_seconds = 0.0

    async def call(
        self, key: str, function: str, args: Mapping[str, Any], *, timeout_seconds: float, read_only: bool = False
    ) -> GateResult:
        self.timeout_seconds = timeout_seconds
        return success(output="")


@pytest.mark.parametrize(("seconds", "timeout"), [(None, 40), (5, 15), (-1, 11), (100_000, 610)])
async def test_the_timeout_of_a_wait_is_bounded(seconds: int | None, timeout: float) -> None:
    gate = Timed(Log())
    shell = default_toolsets(gate, MemoryAttachments(), max_search_results=5)[0]
    args = {"session_id": "a"} | ({"seconds": seconds} if seconds is not None else {})
    await shell.call(ToolCall("1", "call00001", "shell_wait_process", args))
    assert gate.timeout_seconds == timeout


class Engine(ThreadingHTTPServer):
    """A SearXNG instance that answers with JSON."""

    asked: dict[str, list[str]]
    status = 200
    results: object = [
        {"title": f"Result {number}", "url": f"https://example.org/{number}", "content": "Some  words\nhere"}
        for number in range(20)
    ]


class SearchHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        engine = self.server
        assert isinstance(engine, Engine)
        engine.asked = parse_qs(urlsplit(self.path).query)
        body = json.dumps({"results": engine.results}).encode()
        self.send_response(engine.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(("127.0.0.1", 0), SearchHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def search(engine: Engine, **args: str) -> ToolResult:
    toolset = SearchToolset(max_results=3, searxng_url=f"http://127.0.0.1:{engine.server_port}/")
    return await toolset.call(ToolCall("1", "call00001", "search_web", {"query": "moon", **args}))


async def test_a_search_returns_at_most_the_configured_number_of_results(engine: Engine) -> None:
    result = await search(engine, date_range="past_week")
    assert engine.asked == {"q": ["moon"], "format": ["json"], "time_range": ["week"]}
    assert result.content["results"][0] == {
        "title": "Result 0",
        "url": "https://example.org/0",
        "snippet": "Some words here",
    }
    assert len(result.content["results"]) == 3
    assert "https://example.org/2" in result.text


async def test_a_search_without_results_says_so(engine: Engine) -> None:
    engine.results = None
    assert await search(engine) == ToolResult("succeeded", "Nothing was found.", {"results": []})
    assert "time_range" not in engine.asked


@pytest.mark.parametrize(("status", "results"), [(500, []), (200, 5)])
async def test_a_search_engine_that_fails_is_a_failed_call(engine: Engine, status: int, results: object) -> None:
    engine.status, engine.results = status, results
    result = await search(engine)
    assert result.outcome == "failed"
    assert result.text.startswith("The search failed: ")


async def test_an_unreachable_search_engine_is_a_failed_call(engine: Engine) -> None:
    toolset = SearchToolset(max_results=3, searxng_url="http://127.0.0.1:9")
    result = await asyncio.wait_for(toolset.call(ToolCall("1", "c", "search_web", {"query": "moon"})), HANG_SECONDS)
    assert result.outcome == "failed"

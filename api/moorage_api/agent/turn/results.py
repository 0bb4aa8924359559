"""The files that steps name for the user: stored when the step finishes, given to the user when the turn ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import clip
from moorage_api.agent.ports import SandboxLostError, SavedFiles
from moorage_api.agent.state import AgentState, OpenCall
from moorage_api.agent.tokens import BYTES_PER_TOKEN
from moorage_api.agent.turn.compaction import count_room
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import MessageEvent

LEAST_RESULT_CHARS = 2_000
RESULT_SHARE = 0.12
"""Most of the room for the conversation that one result may take, if the window is small."""
NOTE_CHARS = 500
"""A toolset may name the file itself, in a note at the end of its result."""
HOME = "/home/ubuntu"
PATH_KEYS = ("filepath", "path", "file", "file_path", "filename", "name")
NOT_YET = "it is not stored yet, because the sandbox or the file store does not answer; this is tried again at the end"


def paths_in(args: Mapping[str, Any]) -> list[str]:
    """The paths in the argument `attachments` of a call."""
    return [_to_path(item) for item in args.get("attachments") or ()]


def _to_path(item: Any) -> str:
    """The absolute path in an item. Some models send an address or an object, or leave out the directory."""
    if isinstance(item, Mapping):
        item = next((item[key] for key in PATH_KEYS if isinstance(item.get(key), str)), item)
    path = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    path = path.strip().removeprefix("sandbox:").removeprefix("file://")
    if path.startswith("~/"):
        return f"{HOME}/{path[2:]}"
    return path if path.startswith("/") else f"{HOME}/workspace/{path}"


def reasons(saved: SavedFiles) -> dict[str, str]:
    """Why files are not stored, by path."""
    return {**saved.problems, **dict.fromkeys(saved.untried, NOT_YET)}


def changes(state: AgentState, saved: SavedFiles) -> dict[str, Any]:
    """The changes of the state after files were saved. A file that is saved again replaces its earlier copy."""
    attachments = {file.filepath: file for file in [*(state.attachments or ()), *saved.files]}
    unstored = {path: why for path, why in state.unstored.items() if path not in attachments} | dict(saved.problems)
    tried = {*attachments, *saved.problems}
    return {
        "attachments": list(attachments.values()),
        "unstored": unstored,
        "files": [path for path in dict.fromkeys([*state.files, *saved.untried]) if path not in tried],
    }


def _result_chars(work: Work) -> int:
    """Length of a result. It is clipped before it is sent for the first time, because later that costs the cache."""
    share = int(count_room(work) * RESULT_SHARE * BYTES_PER_TOKEN)
    return min(work.limits.max_result_chars, max(share, LEAST_RESULT_CHARS))


async def text_for_model(work: Work, call: OpenCall, text: str, *, whole_in: str = "") -> str:
    """The result of a call, or its beginning and end with the name of the file in the sandbox that holds the whole."""
    limit = _result_chars(work)
    if len(text) <= limit:
        return text
    path = whole_in or await work.unless_stopped(work.attachments.keep_output(f"{call.id}.txt", text))
    is_named = not path or path in text[-NOTE_CHARS:]
    where = (
        "" if is_named else f"; the whole result is in {path}, read the part you need with read_file or search_in_file"
    )
    return clip(text, limit, hint=where)


async def store_untried(work: Work) -> None:
    """Try once more to store the files that could not be tried when their steps finished."""
    if not work.state.files:
        return
    saved = SavedFiles(untried=work.state.files)
    with suppress(SandboxLostError):  # the steps are finished; the answer says which files are missing
        saved = await work.save_files(work.state.files)
    given_up = dict.fromkeys(saved.untried, "the sandbox or the file store did not answer")
    final = SavedFiles(saved.files, {**saved.problems, **given_up})
    # recorded before the model is asked: if this runner is killed, the next one does not store the files again
    await work.record(**changes(work.state, final))


def name_unmentioned(work: Work, answer: str) -> str:
    """A note for the user about the files that could not be stored and that the answer does not name."""
    return prompts.unstored_note(
        {path: why for path, why in work.state.unstored.items() if path.rpartition("/")[2] not in answer}
    )


def delivery(work: Work) -> list[MessageEvent]:
    """The message that gives the user the files of finished steps when a turn ends without a final answer."""
    files, note = work.state.attachments or [], prompts.unstored_note(work.state.unstored)
    if not files:
        return []
    return [MessageEvent(role="assistant", message=f"{prompts.FINISHED_FILES}{note}", attachments=files)]

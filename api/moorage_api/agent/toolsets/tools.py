"""The functions that the model may call in a step, the toolset that runs each, and the check of each call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from moorage_api.agent import prompts
from moorage_api.agent.messages import clip
from moorage_api.agent.model.incoming.answers import RawCall, parse_object
from moorage_api.agent.ports import Function, SwitchedKind, Switches, Toolset
from moorage_api.agent.state import OpenCall
from moorage_api.agent.toolsets.arguments import BadArgumentsError, check_arguments
from moorage_api.agent.toolsets.function_schema import flag, function, text, texts
from moorage_api.agent.toolsets.user_functions import ASK, NOTIFY

FINISH = function(
    "finish_step",
    "End the current step: it is done and checked, or it cannot be done. Call it alone, after you have seen all "
    "results.",
    {
        "success": flag("Whether the step is done"),
        "result": text("The result with the facts that later steps need (numbers, names, paths), or why it failed"),
    },
    {"attachments": texts("Absolute paths of finished files for the user; leave out intermediate files")},
)


NAME_PARTS = re.compile(r"[A-Za-z0-9_-]+")
SWITCHED = frozenset(get_args(SwitchedKind))


class Tools:
    """The functions of a step and their toolsets. A function stays known when it is switched off, for running calls."""

    def __init__(self, toolsets: Sequence[Toolset], switches: Switches, *, max_functions: int) -> None:
        self._in_order = toolsets
        self._switches = switches
        self._max_functions = max_functions
        self._toolsets: dict[str, Toolset] = {}
        self._known: dict[str, Function] = {}
        self._on: set[str] = set()
        self._read()

    def _read(self) -> None:
        """Collect the executor's own functions, then those of the toolsets in order, up to the limit."""
        found = {item.name: item for item in (NOTIFY, ASK, FINISH)}
        for toolset in self._in_order:
            for item in toolset.functions():
                if item.name not in found:
                    found[item.name] = item
                    self._toolsets[item.name] = toolset
        names = list(found)
        self.functions = [found[name] for name in names[: self._max_functions]]
        """Functions that the next request offers to the model."""
        self.left_out = names[self._max_functions :]
        """Names of functions that are on but exceed the limit."""
        self._known |= {item.name: item for item in self.functions}
        self._on = set(found)

    async def refresh(self) -> None:
        """Read the switches again. Does nothing if no toolset can be switched off."""
        if any(toolset.name in SWITCHED for toolset in self._toolsets.values()):
            await self._switches.refresh()
            self._read()

    async def can_run(self, call: OpenCall) -> bool:
        """Whether a toolset runs this function and it is on at this moment."""
        toolset = self._toolsets.get(call.function)
        if toolset is not None and toolset.name in SWITCHED:
            await self.refresh()
        return toolset is not None and call.function in self._on

    def function(self, name: str) -> Function | None:
        return self._known.get(name)

    def needs_consent(self, call: OpenCall) -> bool:
        """Whether the user must still give permission for this call."""
        described = self._known.get(call.function)
        return described is not None and bool(described.confirm) and call.consent != "given"

    def toolset(self, name: str) -> Toolset | None:
        """None for functions that the executor runs itself and for tools that were removed after the call was made."""
        return self._toolsets.get(name)

    def open_call(self, number: int, raw: RawCall, *, is_cut: bool) -> OpenCall:
        """Number the call and check its arguments. A mistake is set as `problem`, which becomes the call's result."""
        name = self._known_name(raw.name)
        described = self.function(name)
        args = parse_object(raw.arguments)
        call = OpenCall(number=number, function=name, args=args or {})
        if described is None:
            names = ", ".join(item.name for item in self.functions)
            call.problem = f"There is no function {raw.name[:80]!r}. Use one of: {names}"
        elif is_cut and (args is None or not raw.arguments.strip()):
            call.problem = prompts.CUT_ANSWER
        elif args is None:
            call.problem = f"The arguments are not a JSON object: {clip(raw.arguments, 400)}"
        else:
            try:
                call.args = check_arguments(described.parameters, args)
            except BadArgumentsError as error:
                call.problem = f"Wrong arguments for {name}: {error}"
        return call

    def _known_name(self, name: str) -> str:
        """The name of a function, without what some servers leave around it, such as `functions.ls<|channel|>`."""
        if name in self._known:
            return name
        found = {part for part in NAME_PARTS.findall(name) if part in self._known}
        return found.pop() if len(found) == 1 else name

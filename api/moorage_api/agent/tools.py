"""What the model may call while it works on a step, who runs it, and whether a call of it can be run at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from moorage_api.agent import prompts
from moorage_api.agent.answers import RawCall, parse_object
from moorage_api.agent.arguments import BadArgumentsError, checked_arguments
from moorage_api.agent.messages import clipped
from moorage_api.agent.ports import Function, SwitchedKind, Switches, Toolset
from moorage_api.agent.state import OpenCall
from moorage_api.agent.toolsets.message import ASK, NOTIFY
from moorage_api.agent.toolsets.schema import flag, function, text, texts

FINISH = function(
    "finish_step",
    "End the step at hand: it is done and checked, or it can't be done. Call it alone, after you saw all results.",
    {
        "success": flag("Whether the step is done"),
        "result": text("What came out, with the facts later steps need: numbers, names, paths; or why it failed"),
    },
    {"attachments": texts("Absolute paths of finished files that the user should get; no intermediate ones")},
)


SWITCHED = frozenset(get_args(SwitchedKind))


class Tools:
    """What the model may call in a step, and who runs it. Known stays known: a call of it may be under way."""

    def __init__(self, toolsets: Sequence[Toolset], switches: Switches, *, max_functions: int) -> None:
        self._in_order = toolsets
        self._switches = switches
        self._max_functions = max_functions
        self._toolsets: dict[str, Toolset] = {}
        self._known: dict[str, Function] = {}
        self._on: set[str] = set()
        self._read()

    def _read(self) -> None:
        """The executor's own functions come first, then the toolsets in their order, as long as there is room."""
        found = {item.name: item for item in (NOTIFY, ASK, FINISH)}
        for toolset in self._in_order:
            for item in toolset.functions():
                if item.name not in found:
                    found[item.name] = item
                    self._toolsets[item.name] = toolset
        names = list(found)
        self.functions = [found[name] for name in names[: self._max_functions]]
        """On offer now."""
        self.left_out = names[self._max_functions :]
        """On, but more than the model takes."""
        self._known |= {item.name: item for item in self.functions}
        self._on = set(found)

    async def look(self) -> None:
        """Take in what was switched on or off since. Asks nobody where nothing could have been."""
        if any(toolset.name in SWITCHED for toolset in self._toolsets.values()):
            await self._switches.look()
            self._read()

    async def can_run(self, call: OpenCall) -> bool:
        """Whether somebody runs this function, and it is on at this moment."""
        toolset = self._toolsets.get(call.function)
        if toolset is not None and toolset.name in SWITCHED:
            await self.look()
        return toolset is not None and call.function in self._on

    def function(self, name: str) -> Function | None:
        return self._known.get(name)

    def needs_consent(self, call: OpenCall) -> bool:
        """Whether the user has to be asked before this call is run."""
        described = self._known.get(call.function)
        return described is not None and bool(described.confirm) and call.consent != "given"

    def toolset(self, name: str) -> Toolset | None:
        """None for what the executor carries out itself, and for tools that are gone since the call was made."""
        return self._toolsets.get(name)

    def open_call(self, number: int, raw: RawCall, *, is_cut: bool) -> OpenCall:
        """The call with its arguments checked, or with the problem that the model is to be told of."""
        described = self.function(raw.name)
        args = parse_object(raw.arguments)
        call = OpenCall(number=number, function=raw.name, args=args or {})
        if described is None:
            names = ", ".join(item.name for item in self.functions)
            call.problem = f"There is no function {raw.name[:80]!r}. Use one of: {names}"
        elif args is None and is_cut:
            call.problem = prompts.CUT_ANSWER
        elif args is None:
            call.problem = f"The arguments are not a JSON object: {clipped(raw.arguments, 400)}"
        else:
            try:
                call.args = checked_arguments(described.parameters, args)
            except BadArgumentsError as error:
                call.problem = f"Wrong arguments for {raw.name}: {error}"
        return call

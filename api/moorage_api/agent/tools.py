"""What the model may call while it works on a step, who runs it, and whether a call of it can be run at all."""

from __future__ import annotations

from collections.abc import Sequence

from moorage_api.agent import prompts
from moorage_api.agent.answers import RawCall, parse_object
from moorage_api.agent.arguments import BadArgumentsError, checked_arguments
from moorage_api.agent.messages import clipped
from moorage_api.agent.ports import Function, Toolset
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


class Tools:
    """What the model may call in a step, and who runs it."""

    def __init__(self, toolsets: Sequence[Toolset]) -> None:
        self._toolsets: dict[str, Toolset] = {}
        self._functions: dict[str, Function] = {item.name: item for item in (NOTIFY, ASK, FINISH)}
        for toolset in toolsets:
            for item in toolset.functions():
                if item.name not in self._functions:
                    self._functions[item.name] = item
                    self._toolsets[item.name] = toolset

    @property
    def functions(self) -> list[Function]:
        return list(self._functions.values())

    def function(self, name: str) -> Function | None:
        return self._functions.get(name)

    def needs_consent(self, call: OpenCall) -> bool:
        """Whether the user has to be asked before this call is run."""
        described = self._functions.get(call.function)
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
            names = ", ".join(self._functions)
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

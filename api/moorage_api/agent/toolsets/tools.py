"""The functions that the model is offered, the toolset that runs each, and the check of each call in a step."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_args

from moorage_api.agent import prompts
from moorage_api.agent.messages import clip
from moorage_api.agent.model.incoming.answers import RawCall, parse_object
from moorage_api.agent.ports import OFFER, Function, SwitchedKind, Switches, Toolset
from moorage_api.agent.state import OpenCall
from moorage_api.agent.toolsets.arguments import BadArgumentsError, check_arguments
from moorage_api.agent.toolsets.function_schema import flag, function, text, texts
from moorage_api.agent.toolsets.plan_functions import MAKE_PLAN, PLANNING, UPDATE_PLAN
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
OWN = (NOTIFY, ASK, FINISH, MAKE_PLAN, UPDATE_PLAN)
"""Functions that no toolset runs."""
FIELDS = frozenset(field.name for field in fields(Function))


class Tools:
    """The functions that all requests of a session offer, in the same order and words, and their toolsets.

    Providers cache the beginning of a request, and the functions come first. So the offer changes only in `renew`,
    between a message of the user and the next request. A function that is switched off in between stays in the offer,
    and a call of it is refused.
    """

    def __init__(
        self, toolsets: Sequence[Toolset], switches: Switches, *, max_functions: int, guidance: str = ""
    ) -> None:
        """`guidance`: a part of the system prompt that comes from the tools."""
        self._in_order = toolsets
        self._switches = switches
        self._max_functions = max_functions
        self._new_guidance = guidance
        self._toolsets: dict[str, Toolset] = {}
        self._on: dict[str, Function] = {}
        self._stored = ""
        self._read()
        self._offer(list(self._on.values()))

    def _read(self) -> None:
        """Collect the functions that are on: our own, then those of the toolsets in order."""
        self._on = {item.name: item for item in OWN}
        for toolset in self._in_order:
            for item in toolset.functions():
                if item.name not in self._on:
                    self._on[item.name] = item
                    self._toolsets[item.name] = toolset

    def _offer(self, found: Sequence[Function]) -> None:
        self.functions = list(found[: self._max_functions])
        """Functions that each request offers to the model."""
        self.left_out = [item.name for item in found[self._max_functions :]]
        """Names of functions that are on but exceed the limit."""
        self.guidance = self._new_guidance + prompts.left_out_tools(self.left_out)
        """The part of the system prompt that belongs to the offer."""
        self._offered = {item.name: item for item in self.functions}

    async def renew(self) -> str:
        """Offer what is on now: what stays, in its order, then what is new. Returns the offer as text if it changed."""
        await self.refresh()
        stay = [_keep(item, self._on[item.name]) for item in self.functions if item.name in self._on]
        self._offer([*stay, *(item for name, item in self._on.items() if name not in self._offered)])
        text = json.dumps({"functions": [asdict(item) for item in self.functions], "guidance": self.guidance})
        if text == self._stored:
            return ""
        self._stored = text
        return text

    def restore(self, transcript: Sequence[Mapping[str, Any]]) -> None:
        """Offer what the last stored offer has, whatever is on now. Does nothing if no offer is stored."""
        self._stored = next((message[OFFER] for message in reversed(transcript) if OFFER in message), "")
        if self._stored:
            offer = json.loads(self._stored)
            known = [{key: value for key, value in item.items() if key in FIELDS} for item in offer["functions"]]
            self.functions = [Function(**item) for item in known]
            self.guidance = offer["guidance"]
            self._offered = {item.name: item for item in self.functions}

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
        """A function of the offer, as its toolset describes it now or described it when it was on."""
        offered = self._offered.get(name)
        return self._on.get(name, offered) if offered is not None else None

    def needs_consent(self, call: OpenCall) -> bool:
        """Whether the user must still give permission for this call."""
        described = self.function(call.function)
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
            names = ", ".join(item.name for item in self.functions if item.name not in PLANNING)
            call.problem = f"There is no function {raw.name[:80]!r}. Use one of: {names}"
        elif name in PLANNING:
            call.problem = prompts.NO_PLAN_NOW
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
        if name in self._offered:
            return name
        found = {part for part in NAME_PARTS.findall(name) if part in self._offered}
        return found.pop() if len(found) == 1 else name


def _keep(offered: Function, found: Function) -> Function:
    """The function as it was offered, unless it changed. The order of keys in the schema may be another one."""
    before, now = (json.dumps([item.description, item.parameters], sort_keys=True) for item in (offered, found))
    return offered if before == now else found

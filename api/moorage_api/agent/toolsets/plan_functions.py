"""Functions by which the model plans. The planner reads their calls; during a step they are refused."""

from __future__ import annotations

from moorage_api.agent.ports import Function

STEPS_SCHEMA = {"type": "array", "items": {"type": "string"}}

MAKE_PLAN = Function(
    name="make_plan",
    description=(
        "Plan the user's task. Use few steps; you must be able to do and check each step with your tools. If no tools "
        "are needed (small talk, a question that you can answer from knowledge), give no steps and put the whole "
        "answer into `message`."
    ),
    parameters={
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "What the chat is about, at most eight words"},
            "message": {
                "type": "string",
                "description": "To the user: how you understood the task and what you will do, one or two sentences. "
                "Without steps: the complete answer",
            },
            "steps": STEPS_SCHEMA | {"description": "What to do, one short sentence each, in order"},
        },
        "required": ["title", "message", "steps"],
        "additionalProperties": False,
    },
)

UPDATE_PLAN = Function(
    name="update_plan",
    description="Replace the steps that are not done yet. Repeat the steps that stay word for word.",
    parameters={
        "type": "object",
        "properties": {
            "message": {
                "type": "string",
                "description": "To the user, if they wrote something or should know about the change; otherwise empty",
            },
            "steps": STEPS_SCHEMA | {"description": "The steps that are left, in order; empty if nothing is left"},
        },
        "required": ["steps"],
        "additionalProperties": False,
    },
)

PLANNING = frozenset({MAKE_PLAN.name, UPDATE_PLAN.name})

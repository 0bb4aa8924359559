"""Families behind a gateway that translates Chat Completions: Gemini, Claude and OpenRouter."""

from __future__ import annotations

from itertools import pairwise

from support.llm import Request
from support.providers import rules, shapes
from support.providers.server import Family, Issued, OwnFields, Refusal


def gemini_signatures(request: Request, issued: Issued) -> Refusal | None:
    """The first of parallel calls has its signature. dify-official-plugins#2088, opensquilla#225"""
    for index, message in rules.assistant_calls(request):
        call = message["tool_calls"][0]
        function = call["function"]["name"]
        signature = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
        if not issued.is_for(signature, function):
            return Refusal(
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                f"work correctly. Additional data, function call `default_api:{function}` , position {index}."
            )
    return None


def gemini_turns(request: Request, _issued: Issued) -> Refusal | None:
    """gemini-cli#26486, lobehub#10049"""
    for before, message in pairwise(request["messages"]):
        if message.get("tool_calls") and before["role"] not in ("user", "tool"):
            return Refusal(
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn."
            )
    return None


GEMINI_BODY = {
    *("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens"),
    *("n", "stop", "tools", "tool_choice", "response_format", "reasoning_effort", "extra_body"),
}
"""Source: ai.google.dev, "OpenAI compatibility"."""
GEMINI_KEYWORDS = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "properties", "required", "anyOf"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength", "minimum", "maximum"),
    *("pattern", "example", "default", "propertyOrdering"),
}
"""Source: ai.google.dev, "Schema" of the API reference."""


def gemini_schemas(request: Request, _issued: Issued) -> Refusal | None:
    """openswarm#24 (keywords), zed#53919 (lists of types), azure-devops-mcp#145 (enums), gemini-cli#4400 (no type)"""
    for index, path, schema in rules.schemas(request):
        where = f"tools[0].function_declarations[{index}].parameters{path and f'.{path}'}"
        unknown = sorted(schema.keys() - GEMINI_KEYWORDS)
        if unknown:
            return Refusal(
                f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at '{where}': Cannot find field."
            )
        if isinstance(schema.get("type"), list):
            words = f"Invalid JSON payload received. Unknown name \"type\" at '{where}'"
            return Refusal(f"{words}: Proto field is not repeating, cannot start list.")
        if not all(isinstance(value, str) for value in schema.get("enum", ())):
            return Refusal(f"Invalid value at '{where}.enum[0]' (TYPE_STRING), {schema['enum'][0]}")
        if "type" not in schema and "anyOf" not in schema:
            return Refusal(f"* {where}.type: must be specified when not using one_of, any_of or all_of fields")
        if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
            return Refusal(f"* {where}.items: missing field.")
    return None


def gemini_properties(request: Request, _issued: Issued) -> Refusal | None:
    """agno#2112, pipecat-flows#110"""
    for index, path, schema in rules.schemas(request):
        if schema.get("type") == "object" and not schema.get("properties"):
            where = f"GenerateContentRequest.tools[0].function_declarations[{index}].parameters.{path and f'{path}.'}"
            return Refusal(f"* {where}properties: should be non-empty for OBJECT type")
    return None


GEMINI = Family(
    name="Gemini's compatible endpoint",
    model="gemini-3-pro-preview",
    deltas=shapes.gemini_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.extra_fields_are_refused(
            lambda index, name: Refusal(
                f"Invalid JSON payload received. Unknown name \"{name}\" at 'messages[{index}]': Cannot find field."
            ),
            OwnFields(call={"extra_content"}),
        ),
        # openhanako#394
        rules.only_these_body_fields(
            GEMINI_BODY,
            lambda name: Refusal(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'),
        ),
        gemini_signatures,
        gemini_turns,
        gemini_schemas,
        gemini_properties,
        # opencode#22473
        rules.function_names_match(
            r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}",
            "GenerateContentRequest.tools[0].function_declarations[{index}].name: Invalid function name. Must start "
            "with a letter or an underscore.",
        ),
    ],
    error_body=shapes.gemini_error,
    window_refusal=lambda size: Refusal(
        f"The input token count ({size.prompt}) exceeds the maximum number of tokens allowed ({size.window})."
    ),
    own=OwnFields(call={"extra_content"}),
    known="Wants the thought signature of each first call back, and schemas with few keywords and at least one "
    "property. Its errors are lists.",
    threads=[
        "langgenius/dify-official-plugins#2088",
        "TokenRhythm/opensquilla#225",
        "google-gemini/gemini-cli#26486",
        "liliMozi/openhanako#394",
        "openswarm-ai/openswarm#24",
        "microsoft/azure-devops-mcp#145",
        "agno-agi/agno#2112",
    ],
)

EXPECTED_THINKING = (
    "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When "
    "`thinking` is enabled, a final `assistant` message must start with a thinking block."
)

# conductor#943, CLIProxyAPI#5319
NO_PREFILL = rules.last_message_is_not_of_the_assistant(
    "This model does not support assistant message prefill. The conversation must end with a user message."
)
# opencode#3194, hermes-agent#67978
NO_BLANK_TEXT = rules.texts_are_not_blank("messages: text content blocks must contain non-whitespace text")

CLAUDE_LITELLM = Family(
    name="Claude through LiteLLM",
    model="claude-sonnet-4-5",
    deltas=shapes.claude_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.tools_are_sent_with_calls(
            "litellm.UnsupportedParamsError: Anthropic expects the `tools=` param to be passed in when making a "
            "tool-calling request. Pass `tools=` OR set `litellm.modify_params = True`"
        ),
        rules.temperature_must_be_1("`temperature` may only be set to 1 when thinking is enabled."),
        rules.no_forced_call_while_thinking("Thinking may not be enabled when tool_choice forces tool use."),
        # litellm#15601, openai-agents-python#1704
        rules.thinking_blocks_are_given_back(EXPECTED_THINKING),
        NO_PREFILL,
        NO_BLANK_TEXT,
    ],
    error_body=shapes.litellm_error,
    window_refusal=lambda size: Refusal(f"prompt is too long: {size.prompt} tokens > {size.window} maximum"),
    own=OwnFields(message={"reasoning_content", "thinking_blocks"}, part={"cache_control"}),
    known="Wants `tools` in each request whose history has calls, and the signed thinking block of the last call.",
    threads=[
        "BerriAI/litellm#15601",
        "openai/openai-agents-python#1704",
        "workglow-dev/libs#746",
        "router-for-me/CLIProxyAPI#5319",
    ],
)


def bedrock_roles(request: Request, _issued: Issued) -> Refusal | None:
    """kibana#246393 (the first message), semantic-kernel#10281 and gateway#748 (alternating roles)"""
    roles = [message["role"] for message in request["messages"] if message["role"] != "system"]
    if roles[:1] != ["user"]:
        return Refusal("A conversation must start with a user message. Try again with a conversation that does.")
    if ("user", "user") in pairwise(roles):
        words = "A conversation must alternate between user and assistant roles. "
        return Refusal(f"{words}Make sure the conversation alternates between user and assistant roles and try again.")
    return None


CLAUDE_BEDROCK = Family(
    name="Claude through a Bedrock gateway",
    model="anthropic.claude-sonnet-4-5-20250929-v1:0",
    deltas=shapes.plain_answer,
    rules=[
        rules.messages_are_well_formed,
        # opencode#2915, agentgateway#2192
        rules.tools_are_sent_with_calls(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        ),
        bedrock_roles,
        NO_PREFILL,
        NO_BLANK_TEXT,
    ],
    error_body=shapes.bedrock_gateway_error,
    window_refusal=lambda _size: Refusal("Input is too long for requested model."),
    own=OwnFields(part={"cache_control"}),
    known="Wants `tools` in each request whose history has calls, and messages of the user and the model in turn. Its "
    "errors are texts in `detail`.",
    threads=[
        "anomalyco/opencode#2915",
        "agentgateway/agentgateway#2192",
        "HolmesGPT/holmesgpt#394",
        "NousResearch/hermes-agent#67978",
        "Portkey-AI/gateway#748",
    ],
)


def openrouter_details(request: Request, issued: Issued) -> Refusal | None:
    """agent-framework#2947, LibreChat-AI/agents#37"""
    for index, message in rules.assistant_calls(request):
        function = message["tool_calls"][0]["function"]["name"]
        details = message.get("reasoning_details") or []
        encrypted = [item.get("data") for item in details if item.get("type") == "reasoning.encrypted"]
        if len(encrypted) != 1 or not issued.is_for(encrypted[0], function):
            return Refusal(
                "Gemini models require OpenRouter reasoning details to be preserved in each request. Upstream error: "
                f'{{"error": {{"code": 400, "message": "A call has no thought_signature, position {index}"}}}}'
            )
    return None


OPENROUTER = Family(
    name="OpenRouter",
    model="google/gemini-3-pro-preview",
    deltas=shapes.openrouter_answer,
    rules=[rules.messages_are_well_formed, openrouter_details, gemini_turns],
    error_body=shapes.openrouter_error,
    # agno#3980
    window_refusal=lambda size: Refusal(
        f"This endpoint's maximum context length is {size.window} tokens. However, you requested about {size.total} "
        f"tokens ({size.prompt} of text input, {size.answer} in the output). Please reduce the length of either one."
    ),
    own=OwnFields(message={"reasoning", "reasoning_details"}, part={"cache_control"}),
    counts_answer=True,
    known="Wants `reasoning_details` back unchanged. The provider's words are in `metadata.raw`. Request and "
    "`max_tokens` together must fit into the window.",
    threads=["microsoft/agent-framework#2947", "LibreChat-AI/agents#37", "hotovo/aider-desk#513", "agno-agi/agno#3980"],
)

"""Families of providers that serve their own models: what each refuses and how it answers.

Each rule is as strict as the strictest report of it. What a provider accepts although its documentation says otherwise
is not a rule here.
"""

from __future__ import annotations

from support.llm import Request
from support.providers import rules, shapes
from support.providers.server import Family, Issued, OwnFields, Refusal, Size


def unknown_parameter(index: int, name: str) -> Refusal:
    return Refusal(f"Unknown parameter: 'messages[{index}].{name}'.", param=f"messages[{index}].{name}")


def openai_window(size: Size) -> Refusal:
    words = (
        f"This model's maximum context length is {size.window} tokens. However, you requested {size.total} tokens "
        f"({size.prompt} in the messages, {size.answer} in the completion). "
        "Please reduce the length of the messages or completion."
    )
    return Refusal(words, param="messages", code="context_length_exceeded")


OPENAI_RULES = [
    rules.messages_are_well_formed,
    # qwen-code#3304: fields of other providers in the same conversation
    rules.extra_fields_are_refused(unknown_parameter),
    # dapr-agents#248, opencode#48857
    rules.tool_choice_needs_tools,
    # vercel/ai#5171, opencode#12653: ids of another provider in the same conversation
    rules.call_ids_have_at_most(40),
    # OpenHands#7700, openai-node#1030
    rules.pictures_only_of_the_user,
    # platform.openai.com, "Create chat completion": name of a function
    rules.function_names_match(
        "[a-zA-Z0-9_-]{1,64}", "Invalid 'tools[{index}].function.name': string does not match pattern."
    ),
]

OPENAI = Family(
    name="OpenAI, gpt-4.1 and before",
    model="gpt-4.1",
    deltas=shapes.plain_answer,
    rules=OPENAI_RULES,
    error_body=shapes.openai_error,
    window_refusal=openai_window,
    counts_answer=True,
    known="Refuses messages with fields of other providers, and ids of calls with more than 40 characters.",
    threads=["QwenLM/qwen-code#3304", "vercel/ai#5171", "dapr/dapr-agents#248"],
)


def tools_need_no_reasoning(request: Request, _issued: Issued) -> Refusal | None:
    """openai-openapi#541, litellm#34569"""
    if not request.get("tools") or request.get("reasoning_effort") == "none":
        return None
    return Refusal(
        f"Function tools with reasoning_effort are not supported for {request['model']} in /v1/chat/completions. "
        "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
        param="reasoning_effort",
    )


OPENAI_REASONING = Family(
    name="OpenAI, gpt-5.x",
    model="gpt-5.6",
    deltas=shapes.plain_answer,
    rules=[
        *OPENAI_RULES,
        rules.body_fields_are_refused(
            {"max_tokens"},
            lambda name: Refusal(
                f"Unsupported parameter: '{name}' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                param=name,
                code="unsupported_parameter",
            ),
        ),
        rules.temperature_must_be_1(
            "Unsupported value: 'temperature' does not support {value} with this model. "
            "Only the default (1) value is supported."
        ),
        tools_need_no_reasoning,
    ],
    error_body=shapes.openai_error,
    window_refusal=lambda size: Refusal(
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        param="messages",
        code="context_length_exceeded",
    ),
    known="Takes tools only with an explicit `reasoning_effort: none`, `max_completion_tokens` and temperature 1.",
    threads=["openai/openai-openapi#541", "BerriAI/litellm#34569", "pipecat-ai/pipecat#4043"],
)

DEEPSEEK = Family(
    name="DeepSeek",
    model="deepseek-v4-flash",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        # eino#994
        rules.no_forced_call_while_thinking("Thinking mode does not support this tool_choice"),
        # qwen-code#3724, pi#3640 (also of answers without calls)
        rules.reasoning_is_given_back(
            "The `reasoning_content` in the thinking mode must be passed back to the API.", of_texts=True
        ),
        # DeepSeek-V3#69, aider#4125 (another limit for another model)
        rules.max_tokens_are_at_most(8192, "Invalid max_tokens value, the valid range of max_tokens is [1, {limit}]"),
        # jcode#310, hermes-webui#2297
        rules.no_pictures(
            "Failed to deserialize the JSON body into the target type: messages[{index}]: unknown variant `image_url`, "
            "expected `text`"
        ),
    ],
    error_body=shapes.openai_error,
    window_refusal=openai_window,
    own=OwnFields(message={"reasoning_content"}),
    counts_answer=True,
    known="While it thinks, it takes no required call and wants the reasoning of every answer back. `max_tokens` has a "
    "limit. It takes no pictures.",
    threads=["QwenLM/qwen-code#3724", "cloudwego/eino#994", "earendil-works/pi#3640", "1jehuang/jcode#310"],
)


def kimi_schemas(request: Request, _issued: Issued) -> Refusal | None:
    """MiqroForge-Desktop#1165 (type of the root), pi#4138 (no type), vercel/ai#18921 (type beside anyOf)"""
    refused = "tools.function.parameters is not a valid moonshot flavored json schema, details: "
    for _, path, schema in rules.schemas(request):
        if not path and schema.get("type") != "object" and "anyOf" not in schema:
            return Refusal('tools.function.parameters.type is required and must be "object"')
        where = f"<At path '{path or 'root'}': "
        if "anyOf" in schema and "type" in schema:
            words = "when using anyOf, type should be defined in anyOf items instead of the parent schema>"
            return Refusal(refused + where + words)
        if not schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
            return Refusal(f"{refused}{where}type is not defined>")
    return None


KIMI = Family(
    name="Kimi",
    model="kimi-k2.6",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        # eino-ext#700
        rules.temperature_must_be_1("invalid temperature: only 1 is allowed for this model"),
        # oh-my-pi#1077
        rules.no_forced_call_while_thinking("tool_choice 'required' is incompatible with thinking enabled"),
        # kimi-cli#1616, kimi-agent-sdk#169
        rules.reasoning_is_given_back(
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index {index}"
        ),
        kimi_schemas,
    ],
    error_body=shapes.kimi_error,
    window_refusal=lambda size: Refusal(f"Invalid request: Your request exceeded model token limit: {size.window}"),
    own=OwnFields(message={"reasoning_content"}),
    known="Wants the reasoning of every call back, temperature 1, and no required call while it thinks. "
    "Checks the schemas of tools in a way of its own.",
    threads=[
        "MoonshotAI/kimi-cli#1616",
        "MoonshotAI/kimi-agent-sdk#169",
        "can1357/oh-my-pi#1077",
        "cloudwego/eino-ext#700",
        "vercel/ai#18921",
    ],
)

QWEN = Family(
    name="Qwen through DashScope",
    model="qwen3.5-plus",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        # eino#994
        rules.no_forced_call_while_thinking(
            "The tool_choice parameter does not support being set to required or object in thinking mode"
        ),
        # hermes-agent#19624
        rules.max_tokens_are_at_most(65_536, "Range of max_tokens should be [1, {limit}]"),
    ],
    error_body=shapes.qwen_error,
    window_refusal=lambda size: Refusal(f"Range of input length should be [1, {size.window}]"),
    own=OwnFields(message={"reasoning_content"}),
    known="Takes no required call while it thinks. `enable_thinking` turns thinking off. `max_tokens` has a limit.",
    threads=["cloudwego/eino#994", "NousResearch/hermes-agent#19624"],
)


def glm_messages(request: Request, issued: Issued) -> Refusal | None:
    """opencode#2557, cline#9939"""
    has_user = any(message["role"] == "user" for message in request["messages"])
    if has_user and rules.messages_are_well_formed(request, issued) is None:
        return None
    return Refusal("The messages parameter is illegal. Please check the documentation.", code="1214")


def glm_tool_choice_needs_tools(request: Request, _issued: Issued) -> Refusal | None:
    """oh-my-openagent#6753"""
    if "tool_choice" in request and not request.get("tools"):
        return Refusal("Invalid API parameter, please check the documentation.", code="1210")
    return None


def glm_tool_choice_is_auto(request: Request, _issued: Issued) -> Refusal | None:
    """hindsight#4246, onyx#14192"""
    is_auto = request.get("tool_choice") in (None, "auto")
    return None if is_auto else Refusal("Tool choice must be auto", code="1210")


GLM = Family(
    name="GLM through z.ai",
    model="glm-5.2",
    deltas=shapes.reasoned_answer,
    rules=[glm_messages, glm_tool_choice_needs_tools, glm_tool_choice_is_auto],
    error_body=shapes.glm_error,
    window_refusal=lambda _size: Refusal("Prompt exceeds max length", code="1261"),
    own=OwnFields(message={"reasoning_content"}),
    known="Its errors are numbers with words that do not say what is wrong. Wants a message of the user, and takes "
    "no `tool_choice` but `auto`.",
    threads=[
        "anomalyco/opencode#2557",
        "code-yeongyu/oh-my-openagent#6753",
        "cline/cline#9939",
        "vectorize-io/hindsight#4246",
    ],
)


def extra_in_message(index: int, name: str) -> Refusal:
    return extra_forbidden("messages", index, "assistant", name)


def extra_in_body(name: str) -> Refusal:
    more = ["include_usage"] if name == "stream_options" else []
    return extra_forbidden(name, *more)


def extra_forbidden(*place: str | int) -> Refusal:
    details = {"type": "extra_forbidden", "loc": ["body", *place], "msg": "Extra inputs are not permitted"}
    return Refusal("", 422, details=details)


MISTRAL_BODY = {
    *("model", "messages", "stream", "temperature", "top_p", "max_tokens", "stop", "random_seed", "n", "metadata"),
    *("response_format", "tools", "tool_choice", "parallel_tool_calls", "presence_penalty", "frequency_penalty"),
    *("prediction", "prompt_mode", "safe_prompt"),
}
"""Source: docs.mistral.ai, "Chat completion"."""

MISTRAL = Family(
    name="Mistral",
    model="mistral-large-latest",
    deltas=shapes.mistral_answer,
    rules=[
        rules.messages_are_well_formed,
        # crush#1590, zeroclaw#2693
        rules.extra_fields_are_refused(extra_in_message),
        # avante.nvim#2347 (stream_options), openclaude#739 (max_completion_tokens)
        rules.only_these_body_fields(MISTRAL_BODY, extra_in_body),
        # hermes-agent#20154, crush#279
        rules.no_user_after_tool,
        # LibreChat-AI/agents#344
        rules.pictures_only_of_the_user,
        # ironclaw#1241, langchain#24668
        rules.call_ids_have_9_characters,
        # rig#1130, autogen#5044
        rules.last_message_is_not_of_the_assistant(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
        ),
    ],
    error_body=shapes.mistral_error,
    window_refusal=lambda size: Refusal(
        f"Prompt contains {size.prompt} tokens and 0 draft tokens, too large for model with {size.window} "
        "maximum context length"
    ),
    # tabby#4082
    always_sends_usage=True,
    known="Takes no message of the user directly behind a result, only call ids of nine letters and digits, and no "
    "unknown field, also no `stream_options`.",
    threads=[
        "NousResearch/hermes-agent#20154",
        "nearai/ironclaw#1241",
        "langchain-ai/langchain#24668",
        "avante-corp/avante.nvim#2347",
        "charmbracelet/crush#1590",
    ],
)


def xai_content(request: Request, _issued: Issued) -> Refusal | None:
    """langchain#34140, n8n#14797"""
    if all(isinstance(message.get("content"), str) or message.get("content") for message in request["messages"]):
        return None
    return Refusal("Invalid request content: Each message must have at least one content element.")


XAI = Family(
    name="xAI",
    model="grok-4",
    deltas=shapes.reasoned_answer,
    rules=[
        xai_content,
        rules.messages_are_well_formed,
        # crush#386, uni-api#105
        rules.body_fields_are_refused(
            {"reasoning_effort", "presence_penalty", "frequency_penalty", "stop"},
            lambda name: Refusal(f"Argument not supported on this model: {name}"),
        ),
    ],
    error_body=shapes.xai_error,
    window_refusal=lambda size: Refusal(
        f"This model's maximum prompt length is {size.window} but the request contains {size.prompt} tokens."
    ),
    own=OwnFields(message={"reasoning_content"}),
    known="Refuses `reasoning_effort` and messages without content. Its errors are plain texts.",
    threads=["charmbracelet/crush#386", "langchain-ai/langchain#34140", "yym68686/uni-api#105"],
)

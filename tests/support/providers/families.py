"""The families: what each provider refuses and how it answers. The rules come from the public threads that are named.

Each rule is as strict as the strictest report of it. What a provider accepts although its documentation says otherwise
is not a rule here.
"""

from __future__ import annotations

from support.llm import Request
from support.providers import rules, shapes
from support.providers.server import Family, Issued, Refusal


def unknown_parameter(index: int, name: str) -> Refusal:
    return Refusal(f"Unknown parameter: 'messages[{index}].{name}'.", param=f"messages[{index}].{name}")


def openai_window(tokens: int, window: int) -> Refusal:
    words = (
        f"This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens."
    )
    return Refusal(words, param="messages", code="context_length_exceeded")


OPENAI = Family(
    name="OpenAI, gpt-4.1 and before",
    model="gpt-4.1",
    deltas=shapes.plain_answer,
    rules=[rules.messages_are_well_formed, rules.extra_fields_are_refused(unknown_parameter)],
    error_body=shapes.openai_error,
    window_refusal=openai_window,
    known="Refuses messages with fields of other providers.",
)


def tools_need_no_reasoning(request: Request, _issued: Issued) -> Refusal | None:
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
        rules.messages_are_well_formed,
        rules.extra_fields_are_refused(unknown_parameter),
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
    window_refusal=openai_window,
    known="Takes tools only with an explicit `reasoning_effort: none`, `max_completion_tokens` and temperature 1.",
    threads=["openai/openai-openapi#541", "BerriAI/litellm#34569", "pipecat-ai/pipecat#4043"],
)

DEEPSEEK = Family(
    name="DeepSeek",
    model="deepseek-v4-flash",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.no_forced_call_while_thinking("Thinking mode does not support this tool_choice"),
        rules.reasoning_is_given_back(
            "The `reasoning_content` in the thinking mode must be passed back to the API.", only_this_turn=True
        ),
    ],
    error_body=shapes.openai_error,
    window_refusal=openai_window,
    known="While it thinks, it takes no required call and wants the reasoning of the turn's calls back.",
    threads=["QwenLM/qwen-code#3724", "cloudwego/eino#994"],
)

KIMI = Family(
    name="Kimi",
    model="kimi-k2.6",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.temperature_must_be_1("invalid temperature: only 1 is allowed for this model"),
        rules.no_forced_call_while_thinking("tool_choice 'required' is incompatible with thinking enabled"),
        rules.reasoning_is_given_back(
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index {index}"
        ),
    ],
    error_body=shapes.kimi_error,
    window_refusal=lambda _tokens, window: Refusal(
        f"Invalid request: Your request exceeded model token limit: {window}"
    ),
    known="Wants the reasoning of every call back, temperature 1, and no required call while it thinks.",
    threads=["MoonshotAI/kimi-agent-sdk#169", "can1357/oh-my-pi#1077", "cloudwego/eino-ext#700"],
)

QWEN = Family(
    name="Qwen through DashScope",
    model="qwen3.5-plus",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.no_forced_call_while_thinking(
            "The tool_choice parameter does not support being set to required or object in thinking mode"
        ),
    ],
    error_body=shapes.qwen_error,
    window_refusal=lambda _tokens, window: Refusal(f"Range of input length should be [1, {window}]"),
    known="Takes no required call while it thinks. `enable_thinking` turns thinking off.",
    threads=["cloudwego/eino#994"],
)


def glm_messages(request: Request, issued: Issued) -> Refusal | None:
    has_user = any(message["role"] == "user" for message in request["messages"])
    if has_user and rules.messages_are_well_formed(request, issued) is None:
        return None
    return Refusal("The messages parameter is illegal. Please check the documentation.", code="1214")


def glm_tool_choice(request: Request, _issued: Issued) -> Refusal | None:
    if "tool_choice" in request and not request.get("tools"):
        return Refusal("Invalid API parameter, please check the documentation.", code="1210")
    return None


GLM = Family(
    name="GLM through z.ai",
    model="glm-5.2",
    deltas=shapes.reasoned_answer,
    rules=[glm_messages, glm_tool_choice],
    error_body=shapes.glm_error,
    window_refusal=lambda _tokens, _window: Refusal("Prompt exceeds max length", code="1261"),
    known="Its errors are numbers with words that do not say what is wrong. Wants a message of the user.",
    threads=["anomalyco/opencode#2557", "code-yeongyu/oh-my-openagent#6753", "cline/cline#9939"],
)


def gemini_signatures(request: Request, issued: Issued) -> Refusal | None:
    """The first of parallel calls has its signature."""
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
            call={"extra_content"},
        ),
        gemini_signatures,
    ],
    error_body=shapes.gemini_error,
    window_refusal=lambda tokens, window: Refusal(
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({window})."
    ),
    known="Wants the thought signature of each first call back. Its errors are lists.",
    threads=["langgenius/dify-official-plugins#2088", "TokenRhythm/opensquilla#225", "0xsline/OpenChatCut#6"],
)

EXPECTED_THINKING = (
    "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When "
    "`thinking` is enabled, a final `assistant` message must start with a thinking block."
)

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
        rules.thinking_blocks_are_given_back(EXPECTED_THINKING),
    ],
    error_body=shapes.litellm_error,
    window_refusal=lambda tokens, window: Refusal(f"prompt is too long: {tokens} tokens > {window} maximum"),
    known="Wants `tools` in each request whose history has calls, and the signed thinking block of the last call.",
    threads=["BerriAI/litellm#15601", "openai/openai-agents-python#1704", "workglow-dev/libs#746"],
)

CLAUDE_BEDROCK = Family(
    name="Claude through a Bedrock gateway",
    model="anthropic.claude-sonnet-4-5-20250929-v1:0",
    deltas=shapes.plain_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.tools_are_sent_with_calls(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        ),
    ],
    error_body=shapes.bedrock_gateway_error,
    window_refusal=lambda _tokens, _window: Refusal("Input is too long for requested model."),
    known="Wants `tools` in each request whose history has calls. Its errors are texts in `detail`.",
    threads=["anomalyco/opencode#2915", "agentgateway/agentgateway#2192", "HolmesGPT/holmesgpt#394"],
)


def extra_forbidden(index: int, name: str) -> Refusal:
    details = {"type": "extra_forbidden", "loc": ["body", "messages", index, name]}
    return Refusal("", 422, details=details | {"msg": "Extra inputs are not permitted"})


MISTRAL = Family(
    name="Mistral",
    model="mistral-large-latest",
    deltas=shapes.mistral_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.extra_fields_are_refused(extra_forbidden),
        rules.no_user_after_tool,
        rules.call_ids_have_9_characters,
    ],
    error_body=shapes.mistral_error,
    window_refusal=lambda tokens, window: Refusal(
        f"Prompt contains {tokens} tokens and 0 draft tokens, too large for model with {window} maximum context length"
    ),
    known="Takes no message of the user directly behind a result, and only call ids of nine letters and digits.",
    threads=["anomalyco/opencode#1680", "nearai/ironclaw#1241", "langchain-ai/langchain#24668"],
)

XAI = Family(
    name="xAI",
    model="grok-4",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        rules.body_fields_are_refused(
            {"reasoning_effort", "presence_penalty", "frequency_penalty", "stop"},
            lambda name: Refusal(f"Argument not supported on this model: {name}"),
        ),
    ],
    error_body=shapes.xai_error,
    window_refusal=lambda tokens, window: Refusal(
        f"This model's maximum prompt length is {window} but the request contains {tokens} tokens."
    ),
    known="Refuses `reasoning_effort`. Its errors are plain texts.",
    threads=["charmbracelet/crush#386", "omnigent-ai/omnigent#1686", "yym68686/uni-api#105"],
)


def openrouter_details(request: Request, issued: Issued) -> Refusal | None:
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
    rules=[rules.messages_are_well_formed, openrouter_details],
    error_body=shapes.openrouter_error,
    window_refusal=lambda tokens, window: Refusal(
        f"This endpoint's maximum context length is {window} tokens. However, you requested about {tokens} tokens."
    ),
    known="Wants `reasoning_details` back unchanged. The provider's words are in `metadata.raw`.",
    threads=["microsoft/agent-framework#2947", "LibreChat-AI/agents#37", "hotovo/aider-desk#513"],
)

OLLAMA = Family(
    name="Ollama",
    model="qwen3:8b",
    deltas=shapes.ollama_answer,
    rules=[rules.messages_are_well_formed],
    error_body=shapes.openai_error,
    window_refusal=None,
    known="Reads only the end of a request that is longer than its window, and does not say so. Set a large window.",
)


def llama_cpp_window(tokens: int, window: int) -> Refusal:
    words = f"request ({tokens} tokens) exceeds the available context size ({window} tokens), try increasing it"
    details = {"n_prompt_tokens": tokens, "n_ctx": window}
    return Refusal(words, kind="exceed_context_size_error", details=details)


def system_message_is_first(request: Request, _issued: Issued) -> Refusal | None:
    if any(message["role"] == "system" for message in request["messages"][1:]):
        return Refusal("System message must be at the beginning.", 500, kind="server_error")
    return None


LLAMA_CPP = Family(
    name="llama.cpp",
    model="qwen3-8b.gguf",
    deltas=shapes.reasoned_answer,
    rules=[rules.messages_are_well_formed, system_message_is_first],
    error_body=shapes.llama_cpp_error,
    window_refusal=llama_cpp_window,
    known="Wants the system message first. A request that is too long is refused with the size of the window.",
)

VLLM = Family(
    name="vLLM",
    model="Qwen/Qwen3-8B",
    deltas=shapes.vllm_answer,
    rules=[rules.messages_are_well_formed],
    error_body=shapes.vllm_error,
    window_refusal=lambda tokens, window: Refusal(
        f"The decoder prompt (length {tokens}) is longer than the maximum model length of {window}."
    ),
    known="Its reasoning comes as `reasoning`. Start it with a parser for tool calls.",
)

FAMILIES = (
    OPENAI,
    OPENAI_REASONING,
    DEEPSEEK,
    KIMI,
    QWEN,
    GLM,
    GEMINI,
    CLAUDE_LITELLM,
    CLAUDE_BEDROCK,
    MISTRAL,
    XAI,
    OPENROUTER,
    OLLAMA,
    LLAMA_CPP,
    VLLM,
)

NOT_YET: tuple[Family, ...] = ()
"""Families with which the agent cannot finish a task yet."""

PASSING = tuple(family for family in FAMILIES if family not in NOT_YET)

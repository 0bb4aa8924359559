"""Families of servers that people run themselves."""

from __future__ import annotations

from support.llm import Request
from support.providers import rules, shapes
from support.providers.server import Family, Issued, OwnFields, Refusal, Size


def ollama_pages(size: Size) -> dict[str, object]:
    model = {"name": "qwen3:8b", "model": "qwen3:8b", "context_length": size.window}
    return {"/api/ps": {"models": [model]}}


OLLAMA = Family(
    name="Ollama",
    model="qwen3:8b",
    deltas=shapes.ollama_answer,
    rules=[rules.messages_are_well_formed],
    error_body=shapes.openai_error,
    window_refusal=None,  # see `cut_request`
    status_pages=ollama_pages,
    own=OwnFields(message={"reasoning"}),
    known="Reads only the end of a request that is longer than its window, and does not say so. That is noticed by "
    "its count of tokens. Set a large window.",
    threads=["ollama/ollama#8531", "ollama/ollama#3839", "ollama/ollama#17427"],
)


def llama_cpp_window(size: Size) -> Refusal:
    words = f"request ({size.prompt} tokens) exceeds the available context size ({size.window} tokens), "
    details = {"n_prompt_tokens": size.prompt, "n_ctx": size.window}
    return Refusal(f"{words}try increasing it", kind="exceed_context_size_error", details=details)


def system_message_is_first(request: Request, _issued: Issued) -> Refusal | None:
    """Chat templates of models, such as Qwen's, raise this."""
    if any(message["role"] == "system" for message in request["messages"][1:]):
        return Refusal("System message must be at the beginning.", 500, kind="server_error")
    return None


LLAMA_CPP = Family(
    name="llama.cpp",
    model="qwen3-8b.gguf",
    deltas=shapes.reasoned_answer,
    rules=[
        rules.messages_are_well_formed,
        system_message_is_first,
        # llama.cpp#20861
        rules.last_message_is_not_of_the_assistant("Assistant response prefill is incompatible with enable_thinking."),
    ],
    error_body=shapes.llama_cpp_error,
    window_refusal=llama_cpp_window,
    own=OwnFields(message={"reasoning_content"}),
    known="Wants the system message first. A request that is too long is refused with the size of the window.",
    threads=["ggml-org/llama.cpp#20861", "ggml-org/llama.cpp#15404"],
)

VLLM = Family(
    name="vLLM",
    model="Qwen/Qwen3-8B",
    deltas=shapes.vllm_answer,
    rules=[rules.messages_are_well_formed],
    error_body=shapes.vllm_error,
    # vllm#42474
    window_refusal=lambda size: Refusal(
        f"This model's maximum context length is {size.window} tokens. However, you requested {size.answer} output "
        f"tokens and your prompt contains at least {size.prompt} input tokens, for a total of at least {size.total} "
        "tokens. Please reduce the length of the input prompt or the number of requested output tokens."
    ),
    own=OwnFields(message={"reasoning"}),
    counts_answer=True,
    known="Its reasoning comes as `reasoning`. Request and `max_tokens` together must fit into the window. Start it "
    "with a parser for tool calls.",
    threads=["vllm-project/vllm#42474", "vllm-project/vllm#9986"],
)

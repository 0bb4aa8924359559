"""What families answer with: the shapes of their error bodies, and their answers with reasoning and signatures."""

from __future__ import annotations

import json
from typing import Any

from support.providers.server import Answering, Delta, Refusal, pieces, streamed_calls, text_deltas, whole_call


def openai_error(refusal: Refusal) -> object:
    body = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": body}


def kimi_error(refusal: Refusal) -> object:
    return {"error": {"message": refusal.message, "type": refusal.kind}}


def qwen_error(refusal: Refusal) -> object:
    message = f"<400> InternalError.Algo.InvalidParameter: {refusal.message}"
    body = {"message": message, "type": refusal.kind, "param": None, "code": "invalid_parameter_error"}
    return {"error": body, "id": "chatcmpl-1", "request_id": "1"}


def glm_error(refusal: Refusal) -> object:
    """A number as text, and words that do not say what is wrong."""
    return {"error": {"code": refusal.code or "1210", "message": refusal.message}}


def gemini_error(refusal: Refusal) -> object:
    return [{"error": {"code": refusal.status, "message": refusal.message, "status": "INVALID_ARGUMENT"}}]


def litellm_error(refusal: Refusal) -> object:
    """LiteLLM's own words, or the provider's body as a text behind LiteLLM's class names."""
    message = refusal.message
    if not message.startswith("litellm."):
        inner = {"type": "error", "error": {"type": refusal.kind, "message": message}}
        message = f"litellm.BadRequestError: AnthropicException - {json.dumps(inner)}"
    return {"error": {"message": message, "type": None, "param": None, "code": str(refusal.status)}}


def bedrock_gateway_error(refusal: Refusal) -> object:
    words = "An error occurred (ValidationException) when calling the ConverseStream operation: "
    return {"detail": words + refusal.message}


def mistral_error(refusal: Refusal) -> object:
    body: dict[str, Any] = {"object": "error", "message": refusal.message, "type": refusal.kind}
    if refusal.details:
        body["message"] = {"detail": [dict(refusal.details)]}
    return body | {"param": None, "code": refusal.code, "raw_status_code": refusal.status}


def xai_error(refusal: Refusal) -> object:
    return {"code": "Client specified an invalid argument", "error": refusal.message}


def openrouter_error(refusal: Refusal) -> object:
    metadata = {"raw": refusal.message, "provider_name": "Google AI Studio"}
    error = {"message": "Provider returned error", "code": refusal.status, "metadata": metadata}
    return {"error": error, "user_id": "user_1"}


def llama_cpp_error(refusal: Refusal) -> object:
    error = {"code": refusal.status, "message": refusal.message, "type": refusal.kind}
    return {"error": error | dict(refusal.details)}


def vllm_error(refusal: Refusal) -> object:
    return {"error": {"message": refusal.message, "type": "BadRequestError", "param": None, "code": refusal.status}}


def plain_answer(answering: Answering) -> list[Delta]:
    return text_deltas(answering) + streamed_calls(answering)


def reasoned_answer(answering: Answering) -> list[Delta]:
    """Reasoning in `reasoning_content`, which the model may require again."""
    reasoning = answering.issued.issue("reasoning")
    return text_deltas(answering, key="reasoning_content", text=reasoning) + plain_answer(answering)


def vllm_answer(answering: Answering) -> list[Delta]:
    return text_deltas(answering, key="reasoning", text=answering.issued.issue("reasoning")) + plain_answer(answering)


def ollama_answer(answering: Answering) -> list[Delta]:
    """Reasoning in `reasoning`, and each call whole."""
    reasoning = text_deltas(answering, key="reasoning", text=answering.issued.issue("reasoning"))
    calls = [{"tool_calls": [whole_call(answering, index)]} for index in range(len(answering.turn.calls))]
    return [*reasoning, *text_deltas(answering), *calls]


def gemini_answer(answering: Answering) -> list[Delta]:
    """Whole calls in one chunk. Only the first of parallel calls has a thought signature."""
    calls = []
    for index, call in enumerate(answering.turn.calls):
        fields: dict[str, Any] = {}
        if index == 0:
            signature = answering.issued.issue("signature", owner=call.function)
            fields = {"extra_content": {"google": {"thought_signature": signature}}}
        calls.append(whole_call(answering, index, **fields))
    return text_deltas(answering) + ([{"tool_calls": calls}] if calls else [])


def claude_answer(answering: Answering) -> list[Delta]:
    """A thinking block in pieces that carry no index, then its signature, as LiteLLM sends them."""
    thinking = answering.issued.issue("thinking")
    signature = answering.issued.issue("signature", owner=thinking)
    deltas: list[Delta] = [
        {"reasoning_content": piece, "thinking_blocks": [{"type": "thinking", "thinking": piece, "signature": None}]}
        for piece in pieces(thinking)
    ]
    deltas.append({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": signature}]})
    return deltas + plain_answer(answering)


def openrouter_answer(answering: Answering) -> list[Delta]:
    """A readable summary of the reasoning and, for answers with calls, its encrypted form with the id of the call."""
    text = answering.issued.issue("reasoning")
    base = {"format": "google-gemini-v1", "index": 0}
    deltas: list[Delta] = [
        {"reasoning": piece, "reasoning_details": [{"type": "reasoning.text", "text": piece} | base]}
        for piece in pieces(text)
    ]
    if answering.turn.calls:
        data = answering.issued.issue("encrypted", owner=answering.turn.calls[0].function)
        detail = {"type": "reasoning.encrypted", "data": data, "id": answering.call_id(0)}
        deltas.append({"reasoning_details": [detail | base]})
    return deltas + plain_answer(answering)


def mistral_answer(answering: Answering) -> list[Delta]:
    """Whole calls with ids of nine letters and digits."""
    calls = [
        whole_call(answering, index, id=f"Mi{answering.place:03d}x{index:03d}")
        for index in range(len(answering.turn.calls))
    ]
    return text_deltas(answering) + ([{"tool_calls": calls}] if calls else [])

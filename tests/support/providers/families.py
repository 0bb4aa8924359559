"""All families of providers that the agent is tried with."""

from __future__ import annotations

from support.providers.gateways import CLAUDE_BEDROCK, CLAUDE_LITELLM, GEMINI, OPENROUTER
from support.providers.hosted import DEEPSEEK, GLM, KIMI, MISTRAL, OPENAI, OPENAI_REASONING, QWEN, XAI
from support.providers.local import LLAMA_CPP, OLLAMA, VLLM

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

__all__ = [
    "CLAUDE_BEDROCK",
    "CLAUDE_LITELLM",
    "DEEPSEEK",
    "FAMILIES",
    "GEMINI",
    "GLM",
    "KIMI",
    "LLAMA_CPP",
    "MISTRAL",
    "OLLAMA",
    "OPENAI",
    "OPENAI_REASONING",
    "OPENROUTER",
    "QWEN",
    "VLLM",
    "XAI",
]

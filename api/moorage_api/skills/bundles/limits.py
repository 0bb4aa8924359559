"""Limits of a skill's files. Source: the wire document, "Limits"."""

MAX_FILES = 200
MAX_SKILL_FILE_BYTES = 256 * 1024
MAX_BUNDLE_BYTES = 10 * 1024 * 1024
MAX_CONTEXT_BYTES = 12 * 1024
MAX_PATH_CHARS = 240
MAX_DEPTH = 12

"""Small helpers that every process of Moorage shares. Standard library only; imports nothing of Moorage."""

OLDEST_PYTHON = (3, 11)
"""The oldest version that the platform and a box run with. pyproject.toml names it too; a test compares them."""
MIB = 1024 * 1024

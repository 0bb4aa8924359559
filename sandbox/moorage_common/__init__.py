"""Small helpers that every process of Moorage shares. Standard library only; imports nothing of Moorage."""

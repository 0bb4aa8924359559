"""The box: the executor beside the agent's commands. Standard library only, so that it starts at once."""

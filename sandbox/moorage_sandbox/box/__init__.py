"""The box: runs the agent's shell commands, file functions and browser. Standard library only, so it starts fast."""

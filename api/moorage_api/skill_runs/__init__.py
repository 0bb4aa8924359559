"""The skills of sessions: pin their versions, copy them into the sandbox, and offer them to the agent."""

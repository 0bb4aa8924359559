"""The skills of a session at work: which versions it has, how they reach its sandbox, what the agent sees."""

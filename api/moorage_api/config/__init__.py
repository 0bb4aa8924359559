"""Configuration that an admin sets for all users: the model and the agent."""

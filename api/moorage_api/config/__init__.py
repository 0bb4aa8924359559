"""What an admin sets for everyone: the model and the agent."""

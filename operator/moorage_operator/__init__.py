"""The operator: it keeps one sandbox pod for every AgentSession whose desired state is Running."""

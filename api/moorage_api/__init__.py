"""The api and the runner of Moorage: accounts, sessions, the event log, and the agent."""

"""Skills: what an admin installs, which versions a session works with, and how the agent uses them."""

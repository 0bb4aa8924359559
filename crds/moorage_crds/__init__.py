"""The AgentSession resource as Python types, and the names and labels that API and operator share.

Imports neither of them. `moorage.dev_agentsessions.yaml` is what the API server enforces.
"""

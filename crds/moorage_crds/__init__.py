"""The AgentSession resource as Python types, and the names and labels that api, operator and chart share.

It imports nothing else of ours. `moorage.dev_agentsessions.yaml` is the same contract as the API server enforces it.
"""

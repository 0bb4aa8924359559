"""Sandboxes in a cluster: each session has an AgentSession resource, for which the operator creates a pod."""

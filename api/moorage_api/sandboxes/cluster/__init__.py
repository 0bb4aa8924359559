"""Sandboxes of a cluster: one AgentSession resource a session, which the operator turns into a pod."""

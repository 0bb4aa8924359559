"""The cluster side: keeps a sandbox pod for every AgentSession that wants one."""

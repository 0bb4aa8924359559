"""The agent: plan, act, sum up. Knows no database and no HTTP."""

"""One turn of the agent: it plans, carries out the steps, and writes the summary."""

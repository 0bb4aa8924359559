"""The agent: it plans, acts and sums up. It uses its ports only, no database and no HTTP framework."""

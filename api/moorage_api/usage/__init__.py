"""The ledger of model calls: tokens and cost of each call, and what they add up to."""

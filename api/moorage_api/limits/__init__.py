"""Rate limits: windows that count requests, and leases that count open connections. Both are kept in Redis."""

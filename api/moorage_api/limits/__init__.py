"""How much anyone may ask for: request windows and leases of connections, both kept in Redis."""

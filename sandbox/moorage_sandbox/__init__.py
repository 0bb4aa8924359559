"""Gate, box and vnc, the host that owns them on one machine, and the protocol and client that others use."""

"""What the operator counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

WRITES = Counter("moorage_operator_writes", "Writes to the API server", ["verb", "resource"])
PASSES = Histogram(
    "moorage_operator_reconcile_seconds",
    "Time of one pass over one session",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
)
FAILED_PASSES = Counter("moorage_operator_reconcile_failures", "Passes that will be tried again", ["reason"])
WAITING = Gauge("moorage_operator_queue_length", "Sessions that wait for a pass")
SESSIONS = Gauge("moorage_operator_sessions", "AgentSessions that are known")
PODS = Gauge("moorage_operator_pods", "Sandbox pods that are known")
LEADING = Gauge("moorage_operator_leading", "Whether this replica holds the Lease")
RELISTS = Counter("moorage_operator_relists", "Times everything was read anew", ["outcome"])
LOSSES = Counter("moorage_operator_pod_watch_failures", "Times the pods could not be listed or watched")

"""The Prometheus metrics of the operator."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

WRITES = Counter("moorage_operator_writes", "Writes to the API server", ["verb", "resource"])
RECONCILES = Histogram(
    "moorage_operator_reconcile_seconds",
    "Seconds to reconcile one session once",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
)
RECONCILE_FAILURES = Counter(
    "moorage_operator_reconcile_failures", "Times that reconciling a session failed and will be repeated", ["reason"]
)
QUEUE_LENGTH = Gauge("moorage_operator_queue_length", "Sessions that wait to be reconciled")
SESSIONS = Gauge("moorage_operator_sessions", "Known AgentSessions")
PODS = Gauge("moorage_operator_pods", "Known sandbox pods")
LEADING = Gauge("moorage_operator_leading", "Whether this replica holds the Lease")
RELISTS = Counter("moorage_operator_relists", "Times that all sessions were listed again", ["outcome"])
POD_WATCH_FAILURES = Counter(
    "moorage_operator_pod_watch_failures", "Times that the pods could not be listed or watched"
)

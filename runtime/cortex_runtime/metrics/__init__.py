"""Metrics: shared memory of all processes of a replica, the Prometheus text, the prediction tracker, the metrics of handlers."""

"""What is counted: shared memory of all processes of a replica, Prometheus, the tracker, and the metrics of handlers."""

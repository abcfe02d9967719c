"""The durable queue of an AsyncAPI: what is promised (base), the life of a job (queue), and the backends that keep it (nats,
sqs)."""

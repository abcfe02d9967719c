"""The durable queue of an AsyncAPI: the guarantees (base), the life of a job (queue), webhooks (hooks), backends (nats, sqs)."""

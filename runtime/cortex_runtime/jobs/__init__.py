"""AsyncAPIs: the gateway that accepts jobs, the consumer and its worker processes that run them, webhooks."""

"""One worker process of a RealtimeAPI: the application that answers requests, batching, and the load that workers share."""

"""A worker process of a RealtimeAPI: the application that handles requests, batching, and load sharing between workers."""

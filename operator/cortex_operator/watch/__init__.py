"""What the API server reports: the watches and the cache that they fill."""

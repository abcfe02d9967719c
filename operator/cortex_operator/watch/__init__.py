"""What the API server reports: the watches, the cache that they fill, and the relist that finds missed deletions."""

"""What replicas report about themselves on their admin port."""

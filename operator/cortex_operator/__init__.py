"""The operator: watches RealtimeAPI and AsyncAPI resources, makes Kubernetes objects of them, and says how they are."""

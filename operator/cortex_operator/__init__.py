"""The operator: watches RealtimeAPI and AsyncAPI resources, applies their Kubernetes objects, and reports their status."""

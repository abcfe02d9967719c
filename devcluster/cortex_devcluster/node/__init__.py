"""The node: runs pods as processes of this machine, with volumes, probes and services."""

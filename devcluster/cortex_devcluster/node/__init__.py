"""The node: pods as processes of this machine, their volumes and probes, and the addresses of services."""

"""APIs outside of a cluster: the programs of the runtime, their environment, ports and queue, and how they are stopped."""

"""`cortex convert`: the cortex.yaml of every age of Cortex (0.1 to 0.35) as RealtimeAPI and AsyncAPI manifests.

`ages` knows which field stood in which releases; `reading` finds fields with their lines, and the age of a file; `translate`
makes the manifest and remarks on everything that changed its name or was left behind.
"""

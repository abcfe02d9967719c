"""`cortex convert`: convert a cortex.yaml of Cortex 0.1 to 0.35 to RealtimeAPI and AsyncAPI manifests.

`releases` lists the fields of each release. `legacy` parses a file and determines its releases. `field_mapping`
creates the manifests, with remarks on renamed and dropped fields.
"""

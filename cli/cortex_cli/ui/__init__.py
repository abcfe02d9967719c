"""`cortex ui`: a local page of the APIs of a cluster.

A server on a loopback address renders pages from what the watches (`store.py`) and the metrics of the replicas (`sampler.py`)
report. `views.py` turns both into what a page shows, `live.py` sends the changed parts of an open page.
"""

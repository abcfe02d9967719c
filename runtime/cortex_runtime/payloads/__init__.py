"""`spec.payloadLogging`: requests and responses as CloudEvents. Imported only by the workers of an API that logs payloads.

serving/logged_app.py records a sample of requests, jobs/logged_control.py one of jobs. queue.py sends them in a thread:
events.py builds the events, redaction.py replaces values, sinks.py delivers.
"""

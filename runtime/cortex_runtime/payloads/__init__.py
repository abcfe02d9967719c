"""`spec.payloadLogging`: requests and responses as CloudEvents. Imported only by the workers of an API that logs payloads.

serving/logged_app.py records a sample of requests. queue.py sends them in a thread: events.py builds the events, redaction.py
replaces values, sinks.py delivers.
"""

"""`sink`: an HTTP server that receives the events."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Sink:
    """An HTTP sink. status: what it answers. seconds: how long it takes for each event."""

    def __init__(self):
        self.status, self.events, self.types, self.seconds = 202, [], set(), 0.0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(sink.seconds)
                if sink.status == 202:
                    sink.types.add(self.headers["content-type"])
                    sink.events.append(json.loads(body))
                self.send_response(sink.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def pair(self, answer):
        """Return the events of a request and of its response."""
        return self.found(answer.headers["x-request-id"], 2)

    def found(self, identity, count):
        """Return the events of a request or job, once there are as many."""
        end = time.monotonic() + 60
        while len(found := [each for each in self.events if each["requestid"] == identity]) < count:
            assert time.monotonic() < end, self.events
            time.sleep(0.02)
        return sorted(found, key=lambda event: event["type"])


@pytest.fixture(scope="module")
def sink():
    sink = Sink()
    yield sink
    sink.server.shutdown()
    sink.server.server_close()

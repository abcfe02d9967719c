"""A replica that reports invented traffic: the content of a pod, started with `python -c`.

The variable PROFILE is JSON: rate (requests per second), seconds (median latency), errors (share of 5XX), in_flight, classes
(shares of the classes), value (mean of a regression), jobs and dead_letters (shares and numbers), answers (by path, those of a
gateway too), lines (log), crash (a message with which it exits at once).
"""

import http.server
import json
import math
import os
import sys
import threading
import time

profile = json.loads(os.environ["PROFILE"])
began = time.time() - profile.get("age", 600)
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def served() -> float:
    """The number of requests until now; the rate varies by a third."""
    now, rate = time.time(), profile.get("rate", 0)
    return rate * (now - began) + rate / 3 * 10 * (1 - math.cos((now - began) / 10))


def metrics() -> str:
    count, errors = served(), profile.get("errors", 0)
    failed = int(count * errors)
    lines = [f'cortex_requests_total{{method="POST",status="200"}} {int(count) - failed}']
    lines += [f'cortex_requests_total{{method="POST",status="500"}} {failed}'] if errors else []
    median = profile.get("seconds", 0.008)
    for bound in BOUNDS:
        share = 1 / (1 + (median / bound) ** 3)
        lines.append(f'cortex_request_duration_seconds_bucket{{le="{bound}"}} {int(count * share)}')
    lines.append(f'cortex_request_duration_seconds_bucket{{le="+Inf"}} {int(count)}')
    wave = 1 + math.sin((time.time() - began) / 10) / 3
    lines.append(f"cortex_requests_in_flight {round(profile.get('in_flight', 0) * wave)}")
    lines.append(f"cortex_queue_length {profile.get('waiting', 0)}")
    for name, share in profile.get("classes", {}).items():
        lines.append(f'cortex_tracker_predictions_total{{class="{name}"}} {int(count * share)}')
    if "value" in profile:
        mean = profile["value"]
        total = mean * (count + profile["rate"] * 2 * math.sin((time.time() - began) / 20))
        lines += [f"cortex_tracker_value_count {int(count)}", f"cortex_tracker_value_sum {total}"]
        lines += [f"cortex_tracker_value_min {mean / 3}", f"cortex_tracker_value_max {mean * 2}"]
    for status, share in profile.get("jobs", {}).items():
        lines.append(f'cortex_async_jobs_total{{status="{status}"}} {int(count * share)}')
    for reason, number in profile.get("dead_letters", {}).items():
        lines.append(f'cortex_async_dead_letters_total{{reason="{reason}"}} {number}')
    return "\n".join(lines) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/metrics":
            time.sleep(profile.get("delay", 0))
            self.answer(200, metrics())
        elif path[1:] in profile.get("answers", {}):
            self.answer(200, json.dumps(profile["answers"][path[1:]]))
        else:
            self.answer(404, json.dumps({"error": f"{path} not found"}))

    def do_POST(self) -> None:
        *_, job, action = ("", *self.path.split("/"))
        if action == "retry":
            self.retry(job)
            return
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"null")
        log("info", "prediction", requestId=self.headers["x-request-id"])
        self.answer(200, json.dumps({"label": "setosa", "received": body, "key": self.headers["x-api-key"]}))

    def retry(self, job: str) -> None:
        """Remove a job from the failed ones, unless it is unknown."""
        answers = profile.get("answers", {})
        failed = answers.get("jobs", {}).get("failed", [])
        found = next((each for each in failed if each["id"] == job), None)
        if found is None:
            self.answer(409, json.dumps({"error": "the job is completed; only a failed job can be retried"}))
            return
        failed.remove(found)
        answers["jobs"]["failed_total"] -= 1
        answers[job] = {"id": job, "status": "in_queue"}
        self.answer(200, json.dumps(answers[job]))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-request-id", self.headers.get("x-request-id") or "generated")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


def log(level: str, message: str, **more: object) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime())
    print(json.dumps({"time": stamp, "level": level, "message": message, **more}), flush=True)


if "crash" in profile:
    for entry in profile.get("lines", []):
        log(**entry)
    sys.exit(profile["crash"])
for port in (8080, 8081):
    server = http.server.ThreadingHTTPServer((os.environ["CORTEX_HOST"], port), Handler)
    threading.Thread(target=server.serve_forever).start()
for entry in profile.get("lines", []):
    log(**entry)
sys.stdout.flush()

"""Count the words of texts slowly, and report progress."""

import time
from collections import Counter
from typing import Any

from cortex_runtime import UserError, report_progress


class Handler:
    def __init__(self, config: dict[str, Any]) -> None:
        self.most = config["most"]
        self.seconds = config["secondsPerText"]

    def handle_async(self, payload: Any, request_id: str) -> dict[str, Any]:
        texts = payload.get("texts") if isinstance(payload, dict) else None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError('the body must be {"texts": ["...", ...]}')
        words: Counter[str] = Counter()
        for number, text in enumerate(texts):
            report_progress(number / len(texts), f"text {number + 1} of {len(texts)}")
            time.sleep(self.seconds)
            words.update(text.lower().split())
        return {"job": request_id, "words": dict(words.most_common(self.most))}

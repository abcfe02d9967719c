"""Count the words of texts, and report progress."""

from collections import Counter
from typing import Any

from cortex_runtime import UserError, report_progress


class Handler:
    """The constructor runs once in each worker process; load a model here."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.most = config.get("most", 3)

    def handle_async(self, payload: Any) -> dict[str, int]:
        """Return the result of a job. payload: the parsed JSON body. With a UserError the job fails without another attempt."""
        texts = payload.get("texts") if isinstance(payload, dict) else None
        if not isinstance(texts, list):
            raise UserError('the body must be {"texts": ["...", ...]}')
        words: Counter[str] = Counter()
        for number, text in enumerate(texts):
            report_progress(number / len(texts), f"text {number + 1} of {len(texts)}")
            words.update(str(text).lower().split())
        return dict(words.most_common(self.most))

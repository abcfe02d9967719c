"""Two models in one predictor. The query parameter `model` selects one."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypedDict

from cortex_runtime import UserError

GOOD = {"best", "excellent", "good", "great", "happy", "love", "wonderful"}
BAD = {"awful", "bad", "hate", "poor", "sad", "terrible", "worst"}


class Text(TypedDict):
    text: str


def initialize_model(name: str, config: dict[str, Any]) -> Callable[[str], Any]:
    """A placeholder for a large model."""

    def sentiment(text: str) -> dict[str, Any]:
        words = re.findall(r"[a-z']+", text.lower())
        good, bad = sum(word in GOOD for word in words), sum(word in BAD for word in words)
        score = (1 + max(good, bad)) / (2 + good + bad)
        return {"label": "POSITIVE" if good >= bad else "NEGATIVE", "score": score}

    def summarize(text: str) -> str:
        sentences = re.split(r"(?<=[.!?])\s+", text.strip())
        common = Counter(re.findall(r"[a-z']{4,}", text.lower()))
        weight = {s: sum(common[word] for word in re.findall(r"[a-z']{4,}", s.lower())) for s in sentences}
        best = sorted(sentences, key=lambda sentence: -weight[sentence])[: config["sentences"]]
        return " ".join(sentence for sentence in sentences if sentence in best)

    return {"sentiment-analysis": sentiment, "summarization": summarize}[name]


class PythonPredictor:
    def __init__(self, config: dict[str, Any]) -> None:
        self.analyzer = initialize_model("sentiment-analysis", config)
        self.summarizer = initialize_model("summarization", config)

    def predict(self, query_params: Any, payload: Text) -> Any:
        model_name = query_params.get("model")
        model_input = payload["text"]
        if model_name == "sentiment":
            return self.analyzer(model_input)
        if model_name == "summarizer":
            return self.summarizer(model_input)
        raise UserError(f"unknown model: {model_name}")

"""A tiny language model behind the API of OpenAI: it knows which word follows which in a text."""

import hashlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

DIMENSIONS = 64


class Message(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(30, ge=1, le=200)
    seed: int = 0


class Embeddings(BaseModel):
    input: str | list[str]


class Handler:
    served_models = ("pairs-of-words",)

    def __init__(self) -> None:
        words = (Path(__file__).parent / "corpus.txt").read_text().split()
        self.next: dict[str, list[str]] = defaultdict(list)
        for word, following in itertools.pairwise(words):
            self.next[word.lower()].append(following)
        self.words = words

    def handle_chat_completions(self, request: Chat) -> Iterator[str | dict[str, Any]]:
        """Continue the last message, word by word.

        Example:
            {"model": "pairs-of-words", "messages": [{"role": "user", "content": "The sea"}]}
        """
        prompt = request.messages[-1].content.split() or ["The"]
        choose = random.Random(request.seed).choice
        word, count = prompt[-1], 0
        while count < request.max_tokens and not (count and word.endswith(".")):
            word = choose(self.next.get(word.lower()) or self.words)
            count += 1
            yield word if count == 1 else f" {word}"
        if not word.endswith("."):
            yield {"finish_reason": "length"}
        total = len(prompt) + count
        yield {"usage": {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": total}}

    def handle_embeddings(self, request: Embeddings) -> np.ndarray:
        """Return a vector for each text. Texts with common words have similar vectors."""
        texts = [request.input] if isinstance(request.input, str) else request.input
        return np.array([embed(text) for text in texts])


def embed(text: str) -> np.ndarray:
    """Return the normalized sum of a random vector for each word."""
    vector = np.full(DIMENSIONS, 1e-6, np.float32)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        vector += np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)

"""What the supervisor tells a worker on its command line; apart, so that the supervisor imports nothing of the worker."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Order:
    """What a worker is started with. listener, board, control: file descriptors; slot: its row of the board."""

    config: str
    project: str
    models: str
    listener: int
    board: int
    control: int
    slot: int
    slots: int

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

"""What the supervisor tells a worker on its command line; apart, so that the supervisor imports nothing of the worker."""

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Order:
    """What a worker is started with.

    lifeline: the name of the supervisor's Lifeline. listener, board, control: file descriptors. slot: its row of the board.
    mailboxes: descriptors to read and to write each slot's mailbox with; none where a replica has one worker.
    """

    config: str
    project: str
    models: str
    lifeline: str
    listener: int = -1
    board: int = -1
    control: int = -1
    slot: int = 0
    slots: int = 0
    mailboxes: list[tuple[int, int]] = field(default_factory=list)

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

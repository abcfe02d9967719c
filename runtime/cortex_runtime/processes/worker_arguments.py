"""The arguments that the supervisor passes to a worker process. A module of its own, so that the supervisor does not import the
worker."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class WorkerArguments:
    """What a worker process is started with.

    parent_pipe: the name of the supervisor's `ParentPipe`. listener, metrics, control: file descriptors of the listening socket,
    the shared metrics and the control channel; -1 for what a worker does not have. grpc_address: host and port of gRPC, or empty.
    split: path of the file that says which requests the candidate answers; empty in an AsyncAPI.
    slot: the worker's index in the shared metrics, of `slots`. mailboxes: a pair of descriptors, to read and to write, of each
    slot's mailbox; empty where a replica has one worker. show_tracebacks: whether responses contain tracebacks.
    """

    config: str
    project: str
    models: str
    parent_pipe: str
    listener: int = -1
    grpc_address: str = ""
    split: str = ""
    metrics: int = -1
    control: int = -1
    slot: int = 0
    slots: int = 0
    mailboxes: list[tuple[int, int]] = field(default_factory=list)
    show_tracebacks: bool = False

    def descriptors(self) -> list[int]:
        """Return all file descriptors in these arguments."""
        single = [each for each in (self.listener, self.metrics, self.control) if each != -1]
        return single + [each for ends in self.mailboxes for each in ends]

    def with_descriptors(self, descriptors: Sequence[int]) -> "WorkerArguments":
        """Return these arguments with other numbers for the descriptors, in the order of `descriptors`."""
        numbers = iter(descriptors)
        return replace(
            self,
            listener=self.listener if self.listener == -1 else next(numbers),
            metrics=self.metrics if self.metrics == -1 else next(numbers),
            control=self.control if self.control == -1 else next(numbers),
            mailboxes=[(next(numbers), next(numbers)) for _ in self.mailboxes],
        )

    def to_json(self) -> str:
        """Return the arguments as JSON, for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerArguments":
        """Return the arguments of a command line."""
        return cls(**json.loads(text))

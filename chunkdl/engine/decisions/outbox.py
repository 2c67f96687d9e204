"""What the core wants done, collected while it handles an event."""

from __future__ import annotations

from chunkdl.engine.decisions.events import Action, ToConsumer, ToWorker
from chunkdl.errors import Failure
from chunkdl.system.printing import printable
from chunkdl.transport.protocol.engine_messages import Message, Notice, StreamFailed


class Outgoing:
    """The actions of the moment, and the failure that ended the stream, once there is one."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._actions: list[Action] = []
        self._early: list[Message] | None = []

    def tell(self, worker: int, message: Message) -> None:
        """Send a message to a worker."""
        self._actions.append(ToWorker(worker, message))

    def say(self, message: Message) -> None:
        """Tell the consumer, once it is there."""
        if self._early is None:
            self._actions.append(ToConsumer(message))
        else:
            self._early.append(message)

    def note(self, level: int, text: str) -> None:
        """Put a line into the consumer's log."""
        self.say(Notice(level, printable(text)))

    def fail(self, failure: Failure) -> None:
        """End the stream; the first failure is the cause, later ones are not told."""
        if self.failure is None:
            self.failure = failure
            self.say(StreamFailed(failure))

    def refuse(self, message: Message) -> None:
        """Answer a consumer that does not belong here."""
        self._actions.append(ToConsumer(message))

    def open(self, welcome: Message) -> None:
        """The consumer is there: welcome it and tell what it has missed."""
        early, self._early = self._early or [], None
        for message in (welcome, *early):
            self.say(message)

    def take(self) -> list[Action]:
        """The actions since the last call."""
        actions, self._actions = self._actions, []
        return actions

"""Lease connections: the tokens that were given there, and who is at each. Pure."""

from __future__ import annotations

from chunkdl.errors import ProtocolError
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor


class Leases:
    """Who comes by an ipc address has shown the kernel who it is, and has a token of it."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._at: dict[int, Visitor] = {}

    def opened(self, lease: int, token: str, who: Visitor = SOMEBODY) -> None:
        """Somebody has connected to the lease socket and is given a token."""
        self._tokens[token] = lease
        self._at[lease] = who

    def lost(self, lease: int) -> None:
        """A lease connection is over, and its tokens with it."""
        self._tokens = {token: other for token, other in self._tokens.items() if other != lease}
        self._at.pop(lease, None)

    def has(self, lease: int, token: str) -> bool:
        """Whether a token is of this lease connection."""
        return self._tokens.get(token) == lease

    def shown(self, token: str, who: Visitor, *, is_local: bool) -> tuple[int | None, Visitor]:
        """The lease connection of somebody who shows a token, and who that is.

        Args:
            token: that it shows, or empty.
            who: it is by its key, or its address.
            is_local: it came by an ipc address.

        Returns:
            None for the lease connection where it is on another machine.

        Raises:
            ProtocolError: the token is not known, or is missing where everybody has one.
        """
        lease = self._tokens.get(token)
        if lease is not None:
            return lease, self._at[lease]
        if token:
            raise ProtocolError("the token is not known; connect to the lease socket again")
        if is_local:
            raise ProtocolError("who comes by an ipc address needs a token of the lease socket")
        return None, who

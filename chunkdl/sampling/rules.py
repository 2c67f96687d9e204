"""The versions of the rules by which equal settings and an equal seed give equal rows.

If you change what a seed gives, increase a number here. Then a state that was saved with other
rules is refused with the reason, instead of continuing with a different stream.
"""

from __future__ import annotations

import msgspec

from chunkdl.errors import StateError

SAMPLING_VERSION = 3
"""Of what is drawn: slides, windows, positions, and which row they are."""
READING_VERSION = 2
"""Of what is read: which picture of a file is which level, where tissue is looked for, and what
pixels are made of."""


class Rules(msgspec.Struct, frozen=True):
    """The rules by which a stream was made.

    Attributes:
        sampling, reading: their versions.
    """

    sampling: int = SAMPLING_VERSION
    reading: int = READING_VERSION

    def check(self, saved: Rules) -> None:
        """See that a state was saved by these rules.

        Raises:
            StateError: it was not; names which differ.
        """
        differ = [
            f"{name} (version {then} in the state, {now} here)"
            for name, then, now in (
                ("sampling", saved.sampling, self.sampling),
                ("reading slides", saved.reading, self.reading),
            )
            if then != now
        ]
        if differ:
            raise StateError(
                "the state was saved by a version of chunkdl with different rules of "
                f"{' and of '.join(differ)}, so the same settings give a different stream; "
                "continue with the version that saved the state, or start the stream from the "
                "beginning"
            )

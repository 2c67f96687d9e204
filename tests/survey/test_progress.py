"""The line of progress says how far a survey is, and a log is not filled with it."""

from __future__ import annotations

import io

import pytest

from chunkdl.survey import progress
from chunkdl.survey.pieces import PIECE_BYTES, Pieces, send_in_pieces
from chunkdl.survey.progress import ProgressLine, duration, line
from chunkdl.transport.channel import channel, receive


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_line_says_how_many_what_is_wrong_and_how_long() -> None:
    """In one line of a terminal."""
    text = line(1_500, 3_000, 12, 3_723.4)
    assert text == (
        "survey [############............] 1,500 of 3,000 slides, 12 with problems, 1:02:03 left"
    )
    assert line(0, 3, 0, None).endswith("] 0 of 3 slides")
    assert duration(59.6) == "0:01:00"


def test_a_terminal_has_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a longer line is left, and nothing at the end."""
    monkeypatch.setattr(progress, "TERMINAL_S", 0.0)
    terminal = Terminal()
    told = ProgressLine(terminal, 10, 0)
    told.tell(1, 1)
    told.tell(10, 0)
    told.end()
    parts = terminal.getvalue().split("\r")
    assert "\n" not in terminal.getvalue()
    longest = max(map(len, parts))
    assert all(len(part) == longest for part in parts[2:-1])
    assert parts[-2].strip() == parts[-1] == ""


def test_a_file_gets_a_line_now_and_then() -> None:
    """A short survey writes none."""
    file = io.StringIO()
    told = ProgressLine(file, 10, 0)
    for done in range(10):
        told.tell(done, 0)
    told.end()
    assert file.getvalue() == ""


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_look_of_any_length_comes_whole(length: int) -> None:
    """One after the other, over a channel of small messages."""
    ours, theirs = channel()
    with ours, theirs:
        pieces = Pieces()
        for whole in (bytes(length), b"next"):
            send_in_pieces(theirs, whole)
            came = None
            while came is None:
                came = pieces.take(receive(ours)[0])
            assert came == whole

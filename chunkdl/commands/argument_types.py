"""Arguments of the command line that are more than text: how each is read."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any


def channels(text: str) -> tuple[int, ...]:
    """Numbers of samples, such as 0,1,2."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} must be sample numbers such as 0,1,2")
    return tuple(map(int, parts))


def weights(text: str) -> dict[str, float]:
    """Classes with weights, such as tumor=1,stroma=2."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            found[name.strip()] = float(weight or 1)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} must be classes with weights, such as tumor=1,stroma=2"
            ) from error
    return found


def detector(text: str) -> str | dict[str, Any]:
    """A name, or a table as a configuration file has it."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        table: dict[str, Any] = tomllib.loads(f"detector = {text}")["detector"]
    except tomllib.TOMLDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no table of TOML, such as '{{name = \"clam\", a_t = 4}}': {error}"
        ) from error
    return table


def count(text: str) -> int:
    """An integer above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)


def picture(text: str) -> Path:
    """The name of a file of a picture."""
    if not text.lower().endswith((".png", ".jpg", ".jpeg")):
        raise argparse.ArgumentTypeError(f"{text!r} must end with .png or .jpg")
    return Path(text)


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds

"""Flags of the command line that are settings: made from their declarations."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.setting import declared
from chunkdl.service.settings import ServiceSettings

_SETTINGS = {one.name: one for kind in (Arguments, ServiceSettings) for one in declared(kind)}


def add_flag(
    parser: argparse._ActionsContainer, name: str, default: object = None, **more: Any
) -> None:
    """Add the flag of a setting: ``--smallchunk-size`` of `smallchunk_size`.

    Args:
        parser: of a command, or a group of its flags.
        name: of the setting, of a stream or of a service.
        default: where the flag is not given.
        more: of `add_argument`, for settings that are more than a number or a word.
    """
    one = _SETTINGS[name]
    unit = f" ({one.setting.unit})" if one.setting.unit else ""
    shown = "" if default is None else " (default: %(default)s)"
    given = {"help": one.setting.meaning + unit + shown, "default": default, **more}
    if one.kind is bool:
        given |= {"action": "store_true", "default": False}
    elif get_origin(one.kind) is Literal:
        given.setdefault("choices", get_args(one.kind))
    elif one.kind in (int, float):
        given.setdefault("type", one.kind)
        given.setdefault("metavar", "N" if one.kind is int else "X")
    parser.add_argument(f"--{name.replace('_', '-')}", **given)

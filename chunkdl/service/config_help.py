"""What a daemon's configuration may say, as a file to begin with, and what one came out as."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, UNSET, Meta, Struct
from msgspec.structs import fields

from chunkdl.engine.settings.memory_plan import beside_arenas
from chunkdl.errors import SlideError
from chunkdl.service.config_file import TABLES, GroupTable
from chunkdl.service.keys import fingerprint
from chunkdl.service.settings import GroupSpec
from chunkdl.service.spec import ServiceSpec
from chunkdl.slides.header_facts import header_facts

WIDTH = 96
NO_DEFAULT = "not given"


def explain() -> str:
    """A configuration file with every table and every key, its unit, default and meaning.

    It can be used as it is once the slides are named: every key has its default, and those
    without one are commented out.
    """
    tables: dict[str, type[Struct]] = {**TABLES, "groups.train": GroupTable}
    return "\n\n".join("\n".join(_lines(name, kind)) for name, kind in tables.items()) + "\n"


def _lines(name: str, kind: type[Struct]) -> Iterator[str]:
    yield f"# {' '.join((kind.__doc__ or '').split())}"
    yield f"[{name}]"
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        meta = _meta(hints[field.name])
        extra = meta.extra or {}
        shown = field.default if field.default is not NODEFAULT else UNSET
        value = NO_DEFAULT if shown is None else _toml(shown)
        unit = f"{extra['unit']}; " if extra["unit"] else ""
        text = f"{meta.description} ({unit}default: {value})"
        yield from textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="#   ")
        if name == "dataset" and field.name == "slides":
            yield 'slides = ["slides"]'
        elif shown is None:
            yield f"# {field.name} = {_toml(extra['example'])}"
        else:
            yield f"{field.name} = {_toml(shown)}"


def _meta(hint: Any) -> Meta:
    if get_origin(hint) is Annotated:
        for part in get_args(hint)[1:]:
            if isinstance(part, Meta):
                return part
    raise TypeError(f"{hint} is not explained")


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON and TOML agree on numbers, text and truth values."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {_toml(one)}' for name, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def summary(spec: ServiceSpec) -> list[str]:
    """What will be served to whom, in lines for people; looks at all headers."""
    run, keys = spec.config.run, spec.keys
    each = sum(run.memory_bytes)
    beside = len(spec.groups) * beside_arenas(run, spec.config.stream)
    bigchunks, batches = (size / 2**20 for size in run.memory_bytes)
    lines = [
        f"slides    {len(spec.config.slides)}: {_readers(spec)}",
        f"patients  {len(spec.patients)}",
        f"memory    {each / 2**20:.0f} MiB a group ({bigchunks:.0f} for {run.bigchunk_slots} "
        f"BigChunks, {batches:.0f} for {run.batch_slots} batches), "
        f"{len(spec.groups) * each / 2**20:.0f} MiB in all",
        f"workers   {run.num_loaders} loaders and {run.num_collectors} collectors a group, at most "
        f"{beside / 2**20:.0f} MiB in all beside that",
        *(f"group     {_group(group)}" for group in spec.groups),
        *(f"address   {bind} ({_protection(spec, bind)})" for bind in spec.binds),
    ]
    if keys is not None:
        lines.append(f"key       {fingerprint(keys.public)} (the server's)")
        lines += [
            f"{'operator ' if client.is_operator else 'consumer '} {fingerprint(client.public)} "
            f"({client.file})"
            for client in keys.allowed
        ]
    return lines


def _readers(spec: ServiceSpec) -> str:
    """How many slides each reader takes."""
    config, stream = spec.config, spec.config.stream
    paths = [entry.path for entry in config.slides]
    taken: Counter[str] = Counter()
    for fact in header_facts(paths, stream.reader, config.run.mask_cache, stream.pixels):
        # Why one cannot be opened was told when the service was configured.
        how = "cannot be opened" if isinstance(fact, SlideError) else f"by reader {fact.reader}"
        taken[how] += 1
    return ", ".join(f"{number} {how}" for how, number in sorted(taken.items()))


def _group(group: GroupSpec) -> str:
    if group.mode == "shard":
        return f"{group.name}: shard"
    return (
        f"{group.name}: broadcast, at most {group.max_lag_batches} batches apart, then "
        f"{group.laggard}"
    )


def _protection(spec: ServiceSpec, bind: str) -> str:
    if bind.startswith("ipc://"):
        return "this user of this machine, and root"
    if spec.keys is not None:
        operators = sum(client.is_operator for client in spec.keys.allowed)
        consumers = len(spec.keys.allowed) - operators
        return f"keys, {consumers} consumers and {operators} operators allowed"
    return "NOT PROTECTED: whoever reaches it may read the slides and end the service"

"""The configuration file of the stand-alone daemon: its tables, how it is read, what it starts.

The tables say what may be written and of which type. Whether a value makes sense is checked where
the arguments of every stream and every service are.
"""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Struct, structs

from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.splits.split import Split
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.setting import declared, describe, file_table
from chunkdl.errors import ConfigError
from chunkdl.service.addresses import default_address
from chunkdl.service.configure import configure_service
from chunkdl.service.keys import Keys, load_server_keys
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.service.spec import ServiceSpec


class DatasetTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[dataset]: which slides; either `slides` or `csv`, and of them a part of a split."""

    slides: Annotated[
        tuple[str, ...],
        describe("slide files, or folders that are searched; one patient per slide"),
    ] = ()
    csv: Annotated[
        str | None,
        describe("manifest, CSV or Parquet: patient, slide, labels", "file", "manifest.csv"),
    ] = None
    root: Annotated[
        str | None, describe("what paths in the manifest are relative to", "folder", "slides")
    ] = None
    naming: Annotated[
        str | dict[str, Any] | None,
        describe(
            "whose slides they are by their file names: tcga, cptac, camelyon16, camelyon17, "
            "panda, gtex, idc, pattern or table; with parameters as a table, see docs/splits.md",
            example="tcga",
        ),
    ] = None
    misfits: Annotated[
        Literal["error", "leave_out"],
        describe("what becomes of slides whose names do not fit"),
    ] = "error"
    split: Annotated[
        str | None,
        describe("split: patient, part; needs part or without", "file", "split.csv"),
    ] = None
    part: Annotated[str | None, describe("only the patients of this part", example="train")] = None
    without: Annotated[
        str | None, describe("only the patients of the other parts", example="fold1")
    ] = None


TRANSFORM = Annotated[
    str | None,
    describe(
        "function that makes a row of a SmallChunk, found on Python's path or beside this file",
        "module:function",
        "transforms:augment",
    ),
]
StreamTable = file_table(
    "StreamTable",
    "stream",
    Arguments,
    "[stream]: what is in the batches; every change makes another stream.",
    more=(("transform", TRANSFORM, None),),
)
RunTable = file_table(
    "RunTable",
    "run",
    Arguments,
    "[run]: what each group gets to work with; changes no batch.",
)


KEYS = Annotated[
    str | None, describe("secret key of the server, see keygen", "file", "server.key_secret")
]
ALLOWED_CLIENTS = Annotated[
    str | None,
    describe(
        "the clients' public keys: *.key of consumers, operators/*.key of those who may also "
        "pause, drain and take ranks",
        "folder",
        "clients",
    ),
]
ServiceTable = file_table(
    "ServiceTable",
    "service",
    ServiceSettings,
    "[service]: who may connect, and how much each may hold.",
    more=(("keys", KEYS, None), ("allowed_clients", ALLOWED_CLIENTS, None)),
)
GroupTable = file_table(
    "GroupTable",
    "group",
    GroupSpec,
    '[groups.NAME]: consumers that join by that name; without any, a shard group "train".',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """A configuration file as it was read.

    Attributes:
        folder: of the file; relative paths in it begin here.
        dataset, stream, run, service: its tables.
        groups: by name.
    """

    folder: Path
    dataset: DatasetTable
    stream: Struct
    run: Struct
    service: Struct
    groups: dict[str, Struct]


TABLES: dict[str, type[Struct]] = {
    "dataset": DatasetTable,
    "stream": StreamTable,
    "run": RunTable,
    "service": ServiceTable,
}
"""The tables that come once."""
Table = TypeVar("Table", bound=Struct)


def read_daemon_config(path: Path) -> DaemonConfig:
    """Read a configuration file; nothing that it names is looked at.

    Raises:
        ConfigError: it cannot be read, is not a TOML, or has an unknown key or a wrong type.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    known = (*TABLES, "groups")
    if unknown := [key for key in raw if key not in known]:
        raise _unknown(path, unknown[0], known)
    groups = raw.get("groups", {})
    if not isinstance(groups, dict):
        raise ConfigError(f"{path}: groups must be tables; write [groups.NAME]")
    for name, value in groups.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"{path}: groups.{name} must be a table; write [groups.NAME] above the keys"
            )
    return DaemonConfig(
        folder=path.absolute().parent,
        **{name: _table(path, name, raw.get(name, {}), kind) for name, kind in TABLES.items()},  # type: ignore[arg-type]
        groups={n: _table(path, f"groups.{n}", v, GroupTable) for n, v in groups.items()},
    )


def spec_of(config: DaemonConfig) -> ServiceSpec:
    """What the server process is given; opens slides, reads keys and imports the transform.

    Raises:
        ConfigError, DatasetError, SlideError: something is wrong; the message says what to change.
    """
    given = structs.asdict(config.service)
    keys = _keys(config, given.pop("keys"), given.pop("allowed_clients"))
    given["bind"] = given["bind"] or (default_address(),)
    given["journal"] = _path(config, given["journal"])
    groups = tuple(
        GroupSpec(name=name, **_fields(GroupSpec, structs.asdict(table)))
        for name, table in config.groups.items()
    )
    settings = ServiceSettings(
        **_fields(ServiceSettings, given),
        groups=groups or (GroupSpec(name="train"),),
        keys=keys,
    )
    return configure_service(_dataset(config), _arguments(config), settings)


def _arguments(config: DaemonConfig) -> Arguments:
    given = {**structs.asdict(config.stream), **structs.asdict(config.run)}
    transform = _transform(config, given.pop("transform"))
    given["mask_cache"] = _path(config, given["mask_cache"])
    given["annotations"] = _path(config, given["annotations"])
    given["tissue"] = _with_paths(config, given["tissue"])
    return Arguments(**_fields(Arguments, given), tfms=transform)


def _fields(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of a table by the names of the settings, which may have other keys."""
    names = {one.key: one.name for one in declared(kind)}
    return {names[key]: value for key, value in given.items()}


def _dataset(config: DaemonConfig) -> Dataset:
    given = config.dataset
    if bool(given.slides) == (given.csv is not None):
        raise ConfigError("dataset: give either slides = [files and folders] or csv = a manifest")
    if given.csv is not None:
        if given.naming is not None:
            raise ConfigError("dataset.naming belongs to dataset.slides; leave it out")
        manifest = config.folder / _home(given.csv)
        return _part(config, Dataset.from_table(manifest, root=_path(config, given.root)))
    if given.root is not None:
        raise ConfigError("dataset.root belongs to dataset.csv; leave it out")
    if given.naming is None and given.misfits != "error":
        raise ConfigError("dataset.misfits belongs to dataset.naming; leave it out")
    naming = given.naming
    if isinstance(naming, dict) and isinstance(naming.get("table"), str):
        naming = {**naming, "table": _path(config, naming["table"])}
    slides = [config.folder / _home(path) for path in given.slides]
    return _part(config, Dataset.from_slides(slides, naming=naming, misfits=given.misfits))


def _part(config: DaemonConfig, dataset: Dataset) -> Dataset:
    """What is served of the dataset: a part of a split, or all of it."""
    given = config.dataset
    path = _path(config, given.split)
    if path is None:
        if given.part is not None or given.without is not None:
            raise ConfigError("dataset.part and dataset.without need dataset.split, the file")
        return dataset
    split = Split.read(path, dataset)
    if given.part is not None and given.without is None:
        return split[given.part]
    if given.without is not None and given.part is None:
        return split.without(given.without)
    raise ConfigError(
        f"dataset.split needs part, one of {', '.join(split.parts)}, or without, the parts but one"
    )


def _keys(config: DaemonConfig, file: str | None, folder: str | None) -> Keys | None:
    secret, allowed = _path(config, file), _path(config, folder)
    if secret is None and allowed is None:
        return None
    if secret is None or allowed is None:
        raise ConfigError(
            "service.keys (the server's secret key) and service.allowed_clients (the folder of the "
            "clients' public keys) belong together; give both or none"
        )
    return load_server_keys(secret, allowed)


def _transform(config: DaemonConfig, named: str | None) -> Callable[[Any], Any] | None:
    if named is None:
        return None
    module, _, function = named.partition(":")
    if not module or not function:
        raise ConfigError(f'stream.transform={named!r} names no function; write "module:function"')
    # The workers are given the path of this process, and look there as well.
    if str(config.folder) not in sys.path:
        sys.path.append(str(config.folder))
    try:
        found: Any = attrgetter(function)(import_module(module))
    except Exception as error:
        raise ConfigError(
            f"stream.transform={named!r} cannot be imported: {type(error).__name__}: {error}; put "
            f"{module}.py into {config.folder} or onto PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"stream.transform={named!r} is not a function: {found!r}")
    transform: Callable[[Any], Any] = found
    return transform


def _path(config: DaemonConfig, given: str | None) -> Path | None:
    return None if given is None else config.folder / _home(given)


def _with_paths(config: DaemonConfig, detector: Any) -> Any:
    """What a file says of a detector, with whole paths of networks, in detectors of any depth."""
    if isinstance(detector, list):
        return [_with_paths(config, one) for one in detector]
    if not isinstance(detector, dict):
        return detector
    whole = {name: _with_paths(config, value) for name, value in detector.items()}
    if isinstance(whole.get("path"), str):
        whole["path"] = str(_path(config, whole["path"]))
    return whole


def _home(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{given!r} names no folder of a user: {error}") from error


def _table(path: Path, name: str, raw: object, kind: type[Table]) -> Table:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        what, _, rest = str(error).partition(" - at `$")
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
        if unknown is not None:
            raise _unknown(path, f"{name}.{unknown[1]}", kind.__struct_fields__) from error
        where = f"{name}{rest.removesuffix('`')}"
        raise ConfigError(
            f"{path}: {where}: {what[:1].lower()}{what[1:]}; 'chunkdl config --explain' shows "
            "what is meant"
        ) from error


def _unknown(path: Path, key: str, known: tuple[str, ...]) -> ConfigError:
    name = key.rpartition(".")[2]
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return ConfigError(f"{path}: {key} is unknown; {remedy}")

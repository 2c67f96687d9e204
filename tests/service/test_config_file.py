"""A configuration file means what it says, and what it cannot mean is refused with a remedy."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile
from zmq.auth import load_certificate

from chunkdl import (
    AllOf,
    Clam,
    HsvShare,
    LightDL,
    Not,
    OnnxTissue,
    PenAreas,
    PenMarks,
    TissueAny,
    TissueWithout,
)
from chunkdl.engine.config import RowSource
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.setting import declared
from chunkdl.errors import ConfigError, DatasetError
from chunkdl.sampling.resolutions import (
    Continuous,
    DrawnResolution,
    FixedResolution,
    Mixture,
    Values,
)
from chunkdl.service.config_file import (
    TABLES,
    DaemonConfig,
    DatasetTable,
    GroupTable,
    RunTable,
    ServiceTable,
    StreamTable,
    read_daemon_config,
    spec_of,
)
from chunkdl.service.config_help import explain, summary
from chunkdl.service.keys import create_keys, fingerprint
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.service.spec import ServiceSpec
from chunkdl.slides.resolution import Resolution
from chunkdl.slides.synthetic.writing import CoordinateSlide

SMALL = """
[stream]
batch_size = 4
smallchunk_size = 32
bigchunk_size = 128
num_bigchunks = 2
tissue = "none"
[run]
num_loaders = 1
num_collectors = 1
memory_limit = "64MiB"
[service]
bind = ["ipc://@chunkdl-config"]
max_consumers = 2
"""
"""A service that is quick to check; [dataset] comes before it, more of [service] behind it."""

Written = Callable[[str], DaemonConfig]


@pytest.fixture
def folder(tmp_path: Path, coordinate_slides: dict[str, CoordinateSlide]) -> Path:
    """A folder with three slides in "slides"."""
    (tmp_path / "slides").mkdir()
    for path in coordinate_slides:
        (tmp_path / "slides" / Path(path).name).symlink_to(path)
    return tmp_path


@pytest.fixture
def written(folder: Path) -> Written:
    """The configuration of a text, from a file beside the slides."""

    def write(text: str) -> DaemonConfig:
        (folder / "c.toml").write_text(text)
        return read_daemon_config(folder / "c.toml")

    return write


def served(written: Written, more: str = "", dataset: str = 'slides = ["slides"]') -> ServiceSpec:
    """The specification of SMALL with more text behind it."""
    return spec_of(written(f"[dataset]\n{dataset}\n{SMALL}{more}"))


# ---- What may be written.


def test_an_empty_file_has_the_defaults(written: Written) -> None:
    """Every table may be left out."""
    config = written("")
    tables = config.dataset, config.stream, config.run, config.service
    assert tables == (DatasetTable(), StreamTable(), RunTable(), ServiceTable())
    assert config.groups == {}


def test_the_defaults_are_those_of_the_loader_and_of_the_specification() -> None:
    """A stream that moves from a script into a daemon stays the same stream."""
    loader = {n: p.default for n, p in inspect.signature(LightDL.__init__).parameters.items()}
    names = {one.key: one.name for one in declared(Arguments)}
    # A daemon needs more slots, and an empty list is how TOML says None.
    own = {"transform", "batch_slots", "cpu_affinity"}
    for table in (StreamTable(), RunTable()):
        mine = {n: v for n, v in msgspec.structs.asdict(table).items() if n not in own}
        assert mine == {key: loader[names[key]] for key in mine}


def test_the_defaults_of_a_service_are_those_of_its_settings() -> None:
    """What a file leaves out is what a program leaves out."""
    for table, kind in ((ServiceTable(), ServiceSettings), (GroupTable(), GroupSpec)):
        given = msgspec.structs.asdict(table)
        for one in declared(kind):
            if one.name != "binds":
                assert one.checked(given[one.key]) == one.default, one.name


def test_every_key_is_explained() -> None:
    """By its meaning and its default, in the order of the tables."""
    text = explain()
    tables: dict[str, type[msgspec.Struct]] = {**TABLES, "groups.train": GroupTable}
    for name, kind in tables.items():
        begin = text.index(f"\n[{name}]\n")
        end = text.find("\n\n", begin)
        lines = text[begin : end if end > 0 else None].splitlines()
        keys = [line.removeprefix("# ").partition(" = ")[0] for line in lines if " = " in line]
        assert keys == list(kind.__struct_fields__)
        before = [lines[n - 1] for n, line in enumerate(lines) if " = " in line]
        assert all(line.startswith("#") and line.endswith(")") for line in before), before


def test_the_explanation_is_a_file_that_changes_nothing(written: Written) -> None:
    """Read back it is the defaults, but for the slides and the group, which is the default one."""
    config = written(explain())
    assert config.dataset == DatasetTable(slides=("slides",))
    assert (config.stream, config.run) == (StreamTable(), RunTable())
    assert config.service == ServiceTable()
    assert config.groups == {"train": GroupTable()}


def test_the_examples_in_the_explanation_are_right(written: Written) -> None:
    """Each key that has no default can be taken out of its comment."""
    lines = explain().splitlines()
    taken_out = [line.removeprefix("# ") if " = " in line else line for line in lines]
    assert len(tomllib.loads("\n".join(taken_out))["stream"]) == len(StreamTable.__struct_fields__)
    config = written("\n".join(taken_out))
    tables = (config.dataset, config.stream, config.run, config.service)
    assert all(value is not None for table in tables for value in msgspec.structs.astuple(table))


# ---- What is refused when it is read.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stream]\nbatch_sizee = 3", "stream.batch_sizee is unknown; did you mean batch_size?"),
        ("[service]\nbinds = []", "service.binds is unknown; did you mean bind?"),
        ("[steam]", "steam is unknown; did you mean stream?"),
        ("[group.train]", "group is unknown; did you mean groups?"),
        ("batch_size = 3", "batch_size is unknown; known are dataset, stream, run, service, gr"),
        ("[groups.val]\nmod = 'shard'", "groups.val.mod is unknown; did you mean mode?"),
        ("[groups.val]\nxyz = 1", "xyz is unknown; known are mode, max_lag_batches, laggard"),
        ("[stream]\nbatch_size = '3'", "stream.batch_size: expected `int`, got `str`"),
        ("[stream]\nbatch_size = 3.0", "stream.batch_size: expected `int`, got `float`"),
        ("[stream]\ngrid = 1", "stream.grid: expected `bool`, got `int`"),
        ("[dataset]\nslides = 'here'", "dataset.slides: expected `array`, got `str`"),
        ("[service]\nbind = [1]", r"service.bind[0]: expected `str`, got `int`"),
        ("[service]\nlog_format = 'xml'", "service.log_format: invalid enum value 'xml'"),
        ("[groups.a.b]\nmode = 'shard'", "groups.a.b is unknown"),
        ("[groups.a]\nmode = 'all'", "groups.a.mode: invalid enum value 'all'"),
        ("[groups]\nmode = 'shard'", "groups.mode must be a table; write [groups.NAME]"),
        ("groups = 1", "groups must be tables; write [groups.NAME]"),
        ("stream = 1", "stream: expected `object`, got `int`"),
        ("[stream", "is not a TOML file:"),
        ("[stream]\nseed = 1\nseed = 2", "is not a TOML file:"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    written: Written, folder: Path, text: str, message: str
) -> None:
    """With the file, the path of the key, and what is close to it or expected there."""
    with pytest.raises(ConfigError) as refused:
        written(text)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(folder / "c.toml"))


def test_a_wrong_type_says_where_to_look(written: Written) -> None:
    """At the explanation of all keys."""
    with pytest.raises(ConfigError, match="'chunkdl config --explain' shows"):
        written("[stream]\nbatch_size = '3'")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Absent, a folder, or no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, message in (("absent", "No such file"), ("", "directory"), ("binary", "not a TOML")):
        with pytest.raises(ConfigError, match=message) as refused:
            read_daemon_config(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value)


# ---- What comes of it.


def test_a_part_of_a_split_is_served(written: Written, folder: Path) -> None:
    """Or all parts but one, as in cross-validation; the file lies beside the configuration."""
    names = sorted(path.name for path in (folder / "slides").iterdir())
    rows = "".join(f"{name},{part}\n" for name, part in zip(names, ("a", "b", "a"), strict=True))
    (folder / "split.csv").write_text(f"patient,part\n{rows}")
    for key, expected in (('part = "a"', 2), ('part = "b"', 1), ('without = "a"', 1)):
        spec = served(written, dataset=f'slides = ["slides"]\nsplit = "split.csv"\n{key}')
        assert len(spec.config.slides) == expected


def test_slides_are_named_by_a_naming(written: Written, folder: Path) -> None:
    """By its name, or as a table with parameters, whose files begin at the configuration file."""
    for path in list((folder / "slides").iterdir()):
        path.rename(folder / "slides" / f"C3L-00001-2{path.stem[-1]}.tif")
    pattern = """naming = {name = "pattern", pattern = '(?P<patient>C3L-[0-9]+)-.*'}"""
    for naming in ('naming = "cptac"', pattern):
        spec = served(written, dataset=f'slides = ["slides"]\n{naming}')
        assert {entry.patient for entry in spec.config.slides} == {0}
    (folder / "idc.csv").write_text("PatientID,SeriesInstanceUID\nC3L-00001,slides\n")
    idc = """naming = {name = "idc", table = "idc.csv"}"""
    assert len(served(written, dataset=f'slides = ["slides"]\n{idc}').config.slides) == 3


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ('slides = ["slides"]\npart = "a"', "dataset.part and dataset.without need dataset.split"),
        ('slides = ["slides"]\nsplit = "s.csv"', "split needs part, one of a, or without"),
        ('slides = ["slides"]\nmisfits = "leave_out"', "dataset.misfits belongs to dataset.naming"),
        ('slides = ["slides"]\nroot = "x"', "dataset.root belongs to dataset.csv"),
        ('csv = "m.csv"\nnaming = "tcga"', "dataset.naming belongs to dataset.slides"),
    ],
)
def test_keys_of_the_dataset_that_do_not_belong_together_are_refused(
    written: Written, folder: Path, dataset: str, message: str
) -> None:
    """With the one that is missing or too many."""
    names = sorted(path.name for path in (folder / "slides").iterdir())
    (folder / "s.csv").write_text("patient,part\n" + "".join(f"{name},a\n" for name in names))
    with pytest.raises(ConfigError, match=message):
        served(written, dataset=dataset)


def test_every_key_arrives(written: Written, folder: Path) -> None:
    """Nothing that is written is dropped on the way to the specification."""
    core = min(os.sched_getaffinity(0))
    spec = spec_of(
        written(
            f"""
            [dataset]
            slides = ["slides/slide-1.tif", "slides/slide-0.tif"]
            [stream]
            batch_size = 5
            smallchunk_size = 40
            bigchunk_size = 200
            downsample = 2
            resolution_policy = "nearest"
            num_bigchunks = 3
            reuse = 2
            smallchunks_per_bigchunk = 9
            tissue = {{name = "without", detector = {{name = "clam", a_t = 2}}, remove = ["pen"]}}
            tissue_threshold = 0.25
            reader = "tiff"
            grid = true
            drop_last = true
            seed = 18446744073709551615
            [run]
            num_loaders = 2
            num_collectors = 3
            memory_limit = "100MiB"
            batch_slots = 40
            mask_cache = "masks"
            cpu_affinity = [{core}]
            stall_timeout_s = 7
            max_restarts = 1
            on_error = "raise"
            [service]
            bind = ["tcp://127.0.0.1:1", "tcp://localhost:2"]
            insecure = true
            max_consumers = 6
            credit_batches = 3
            credit_bytes = "1MiB"
            silent_s = 1
            grace_s = 2
            drain_s = 3
            exit_when_idle = true
            journal = "positions"
            log_format = "json"
            [groups.b]
            mode = "broadcast"
            max_lag_batches = 2
            laggard = "detach"
            [groups.a]
            """
        )
    )
    stream, run = spec.config.stream, spec.config.run
    assert [Path(entry.path).name for entry in spec.config.slides] == ["slide-1.tif", "slide-0.tif"]
    assert (stream.batch_size, stream.smallchunk_px, stream.bigchunk_px) == (5, 40, 200)
    assert stream.resolution == FixedResolution(Resolution("downsample", 2, "nearest"))
    assert (stream.num_bigchunks, stream.reuse) == (3, 2)
    assert (stream.smallchunks_per_bigchunk, stream.tissue_threshold) == (9, 0.25)
    assert stream.tissue == TissueWithout(Clam(a_t=2), PenAreas())
    assert (stream.reader, stream.grid, stream.drop_last) == ("tiff", True, True)
    assert (stream.seed, run.order) == (2**64 - 1, "strict")
    assert (run.num_loaders, run.num_collectors, run.batch_slots) == (2, 3, 40)
    assert sum(run.memory_bytes) <= 100 * 2**20
    assert (run.mask_cache, run.stall_timeout_s) == (folder / "masks", 7)
    assert (run.max_restarts, run.on_error) == (1, "raise")
    assert run.cpu_affinity == (core,)
    assert spec.binds == ("tcp://127.0.0.1:1", "tcp://localhost:2")
    assert (spec.max_consumers, spec.credit_batches, spec.credit_bytes) == (6, 3, 2**20)
    assert (spec.silent_s, spec.grace_s, spec.drain_s) == (1, 2, 3)
    assert (spec.exit_when_idle, spec.log_format) == (True, "json")
    assert spec.journal == folder / "positions"
    assert spec.groups == (
        GroupSpec(name="b", mode="broadcast", max_lag_batches=2, laggard="detach"),
        GroupSpec(name="a"),
    )


def test_a_pixel_filter_of_a_file_is_the_one_of_a_program(written: Written) -> None:
    """Filters of filters too; a function of the user cannot be said there."""

    def stream(line: str) -> str:
        return f'[dataset]\nslides = ["slides"]\n{SMALL}'.replace("[stream]", f"[stream]\n{line}")

    said = 'pixel_filter = {name = "all", filters = ["midnight", {name = "not", filter = "pen"}]}'
    spec = spec_of(written(stream(said)))
    assert spec.config.stream.pixel_filter == AllOf(HsvShare(), Not(PenMarks()))
    own = 'pixel_filter = {name = "own", function = "mine:good", version = "1"}'
    with pytest.raises(ConfigError, match=r"cannot be said in a file.*OwnFilter\(function"):
        spec_of(written(stream(own)))
    with pytest.raises(ConfigError, match=r"grid=True .* has no pixel_filter"):
        spec_of(written(stream('pixel_filter = "grey"\ngrid = true')))


def test_without_groups_and_addresses_there_is_one_of_each(
    written: Written, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard group "train", and a socket in the runtime folder."""
    runtime = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    text = SMALL.replace('bind = ["ipc://@chunkdl-config"]', "")
    spec = spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}'))

    assert spec.groups == (GroupSpec(name="train"),)
    assert spec.binds == (f"ipc://{runtime}/chunkdl/service",)
    assert spec.config.run.batch_slots == 2 * 4 + 4


def test_paths_begin_at_the_file(
    written: Written, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Manifest and its root, keys and journal, wherever the daemon is started."""
    (folder / "lists").mkdir()
    (folder / "lists" / "m.csv").write_text(
        "patient,slide,grade\nA,slide-0.tif,3\nB,slide-1.tif,4\n"
    )
    public, _ = create_keys("server", folder)
    (folder / "clients").mkdir(mode=0o700)
    shutil.copy(create_keys("c", folder)[0], folder / "clients")
    more = 'journal = "lists/j"\nkeys = "server.key_secret"\nallowed_clients = "clients"\n'

    spec = served(written, more, 'csv = "lists/m.csv"\nroot = "slides"')

    assert [entry.path for entry in spec.config.slides] == [
        str(folder / "slides" / f"slide-{number}.tif") for number in range(2)
    ]
    assert [(p.id, p.name, p.labels) for p in spec.patients] == [
        (0, "A", {"grade": 3}),
        (1, "B", {"grade": 4}),
    ]
    assert spec.journal == folder / "lists" / "j"
    assert spec.keys is not None
    assert spec.keys.public.encode() == load_certificate(public)[0]
    assert len(spec.keys.allowed) == 1


def test_networks_that_find_tissue_lie_beside_the_file(written: Written, folder: Path) -> None:
    """Whole paths stay; also in detectors of detectors."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra that is not installed")
    (folder / "net.onnx").write_bytes(b"a network")
    for path in ("net.onnx", str(folder / "net.onnx")):
        network = f'{{name = "onnx", path = "{path}", mpp = 8}}'
        said = SMALL.replace('"none"', f'{{name = "any", detectors = [{network}]}}')
        spec = spec_of(written(f'[dataset]\nslides = ["slides"]\n{said}'))
        tissue = spec.config.stream.tissue
        assert tissue == TissueAny(OnnxTissue(str(folder / "net.onnx"), 8.0))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("", "give either slides .* or csv"),
        ('slides = ["slides"]\ncsv = "m.csv"', "give either slides .* or csv"),
        ('slides = ["slides"]\nroot = "slides"', "root belongs to dataset.csv; leave it out"),
    ],
)
def test_the_slides_come_from_one_place(written: Written, dataset: str, message: str) -> None:
    """Paths or a manifest, not both and not none."""
    with pytest.raises(ConfigError, match=message):
        served(written, dataset=dataset)


def test_slides_that_are_not_there_are_named(written: Written, folder: Path) -> None:
    """By the path that was looked at."""
    with pytest.raises(DatasetError, match=str(folder / "absent")):
        served(written, dataset='slides = ["absent"]')
    with pytest.raises(DatasetError, match=str(folder / "absent")):
        served(written, dataset='csv = "absent.csv"')


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("keys = 'k'", r"keys .* and service.allowed_clients .* belong together; give both"),
        ("allowed_clients = 'k'", "belong together; give both or none"),
        ("keys = 'k'\nallowed_clients = 'c'", "the key file .*/k cannot be read"),
        (
            "credit_bytes = 'much'",
            'credit_bytes=.much. is not a size; give bytes or a text like "4GiB',
        ),
        ("silent_s = 99", "silent_s=99.0 must be below grace_s"),
        ("[groups.'a b']", "groups: 'a b' is not a name"),
    ],
)
def test_a_service_that_cannot_be_is_refused(written: Written, more: str, message: str) -> None:
    """The checks of all services hold for a file."""
    with pytest.raises(ConfigError, match=message):
        served(written, more)


@pytest.mark.parametrize(
    ("written_as", "values"),
    [
        ('{"0.25" = 1, "0.5" = 2}', Mixture({0.25: 1, 0.5: 2})),
        ('{low = 0.25, high = 2, density = "log"}', Continuous(0.25, 2.0, "log")),
    ],
)
def test_resolutions_that_are_drawn_have_a_form_in_the_file(
    written: Written, folder: Path, written_as: str, values: Values
) -> None:
    """Weights by value, or a range."""
    text = SMALL.replace("[stream]", f"[stream]\nmpp = {written_as}")
    assert text != SMALL
    stream = spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}')).config.stream
    assert stream.resolution == DrawnResolution("mpp", values, "resample")


# ---- The transform.


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an import adds is taken away again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("daemon_")]:
        del sys.modules[name]


@pytest.mark.usefixtures("own_path")
def test_a_transform_is_found_beside_the_file(written: Written, folder: Path) -> None:
    """It makes the rows, and its folder is on the path that the workers are given."""
    (folder / "daemon_rows.py").write_text(
        "class Rows:\n    def half(data):\n        return data\n"
    )
    transform = 'transform = "daemon_rows:Rows.half"\n'
    text = SMALL.replace("[run]", f"{transform}[run]")
    config = written(f'[dataset]\nslides = ["slides"]\n{text}')

    spec = spec_of(config)
    spec_of(config)

    assert spec.config.stream.rows is RowSource.TRANSFORM
    assert b"half" in spec.config.user["collector"]
    assert sys.path.count(str(folder)) == 1
    # What was there before is found first.
    assert sys.path[-1] == str(folder)


@pytest.mark.usefixtures("own_path")
@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("daemon_bad", 'names no function; write "module:function"'),
        (":f", "names no function"),
        ("daemon_bad:", "names no function"),
        ("daemon_absent:f", "ModuleNotFoundError: .*; put daemon_absent.py into .* PYTHONPATH"),
        ("daemon_bad:absent", "AttributeError"),
        ("daemon_bad:number", "is not a function: 5"),
        ("daemon_raises:f", "ZeroDivisionError"),
    ],
)
def test_a_transform_that_is_none_is_refused(
    written: Written, folder: Path, transform: str, message: str
) -> None:
    """With its name and what to write."""
    (folder / "daemon_bad.py").write_text("number = 5\n")
    (folder / "daemon_raises.py").write_text("1 / 0\n")
    text = SMALL.replace("[run]", f'transform = "{transform}"\n[run]')
    with pytest.raises(ConfigError, match=message) as refused:
        spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}'))
    assert repr(transform) in str(refused.value)


# ---- The summary.


def test_the_summary_says_what_is_served_to_whom(written: Written, folder: Path) -> None:
    """Slides by reader, patients, memory, groups, addresses, and fingerprints of all keys."""
    create_keys("server", folder)
    shutil.copy(create_keys("c", folder)[0], folder / "c2.key")
    (folder / "clients" / "operators").mkdir(mode=0o700, parents=True)
    (folder / "clients").chmod(0o700)
    (folder / "c2.key").rename(folder / "clients" / "c2.key")
    create_keys("boss", folder)[0].rename(folder / "clients" / "operators" / "boss.key")
    keys = 'keys = "server.key_secret"\nallowed_clients = "clients"\n'
    groups = "[groups.a]\n[groups.b]\nmode = 'broadcast'\n"
    text = SMALL.replace("ipc://@chunkdl-config", "tcp://127.0.0.1:5555") + keys + groups
    spec = spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}'))
    assert spec.keys is not None

    text = "\n".join(summary(spec))

    each = sum(spec.config.run.memory_bytes) / 2**20
    assert "slides    3: 3 by reader tiff" in text
    assert "patients  3" in text
    assert f"{each:.0f} MiB a group" in text
    assert f"{2 * each:.0f} MiB in all" in text
    assert "a: shard" in text
    assert "b: broadcast, at most 4 batches apart, then block" in text
    assert "tcp://127.0.0.1:5555 (keys, 1 consumers and 1 operators allowed)" in text
    assert f"{fingerprint(spec.keys.public)} (the server's)" in text
    for role, client in zip(("consumer", "operator"), spec.keys.allowed, strict=True):
        assert f"{role}  {fingerprint(client.public)} ({client.file})" in text
    for secret in folder.glob("*.key_secret"):
        hidden = load_certificate(secret)[1]
        assert hidden is not None
        assert hidden.decode() not in text


def test_the_summary_warns_of_an_open_service(written: Written) -> None:
    """Where whoever reaches it may connect without keys."""
    text = SMALL.replace("ipc://@chunkdl-config", "tcp://0.0.0.0:5555") + "insecure = true\n"
    spec = spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}'))
    assert "tcp://0.0.0.0:5555 (NOT PROTECTED" in "\n".join(summary(spec))


def test_the_summary_counts_slides_that_nobody_can_read(written: Written, folder: Path) -> None:
    """They are left out of the stream later; here they are seen."""
    (folder / "slides" / "broken.tif").write_bytes(b"II*\0")
    assert summary(served(written))[0] == "slides    4: 3 by reader tiff, 1 cannot be opened"
    for number in range(70):
        (folder / "slides" / f"more-{number}.tif").symlink_to(folder / "slides" / "slide-0.tif")
    assert summary(served(written))[0] == "slides    74: 73 by reader tiff, 1 cannot be opened"


def test_the_summary_counts_slides_as_they_are_read(written: Written, folder: Path) -> None:
    """With the rule for pixels of the stream: without it, one of 16 bits cannot be opened."""
    values = np.zeros((512, 512), np.uint16)
    tifffile.imwrite(folder / "slides" / "grey.tif", values, tile=(128, 128))
    text = SMALL.replace("[stream]", "[stream]\nwindow = [0, 4095]")
    spec = spec_of(written(f'[dataset]\nslides = ["slides"]\n{text}'))
    assert summary(spec)[0] == "slides    4: 4 by reader tiff"

"""What a service is given is checked as a whole, and every refusal says what to change."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.setting import Declared, declared
from chunkdl.errors import ConfigError, MemoryLimitError
from chunkdl.patches.hooks import BigChunkLoader
from chunkdl.service import addresses as service_addresses
from chunkdl.service import configure as service_configure
from chunkdl.service.addresses import check_addresses, default_address
from chunkdl.service.configure import configure_service
from chunkdl.service.keys import AllowedClient, Keys, create_keys, load_server_keys
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.service.spec import ServiceSpec
from chunkdl.slides.synthetic.writing import CoordinateSlide

ARGUMENTS = Arguments(
    batch_size=4,
    smallchunk_size=32,
    bigchunk_size=128,
    num_bigchunks=2,
    tissue="none",
    on_error=None,
    num_loaders=1,
    num_collectors=1,
    memory_limit="64MiB",
    batch_slots=0,
    stall_timeout=10.0,
    max_restarts=3,
)
LOCAL = "ipc://@chunkdl-settings"
KEYS = Keys(public="p" * 40, secret="s" * 40, allowed=(AllowedClient("c.key", "c" * 40),))

Configured = Callable[..., ServiceSpec]


@pytest.fixture
def configured(coordinate_dataset: Dataset) -> Configured:
    """A service of ARGUMENTS at LOCAL with changes to its settings, and to the arguments."""

    def configure(
        arguments: dict[str, Any] | None = None,
        dataset: Dataset = coordinate_dataset,
        **settings: Any,
    ) -> ServiceSpec:
        return configure_service(
            dataset,
            dataclasses.replace(ARGUMENTS, **(arguments or {})),
            ServiceSettings(**{"binds": (LOCAL,), **settings}),
        )

    return configure


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder that is named as the runtime folder of the user."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_the_defaults_are_those_of_the_specification(configured: Configured) -> None:
    """What nobody set is what `ServiceSpec` says, with one shard group "train"."""
    spec = configured()
    unset = {f.name: f.default for f in fields(ServiceSpec) if f.default is not MISSING}
    assert unset
    assert {name: getattr(spec, name) for name in unset} == unset
    assert spec.groups == (GroupSpec(name="train"),)
    assert spec.binds == (LOCAL,)


def test_what_was_set_arrives(configured: Configured, tmp_path: Path) -> None:
    """Every setting of the service is in the specification."""
    given: dict[str, Any] = {
        "binds": ("tcp://127.0.0.1:5555", "tcp://[::1]:1"),
        "groups": (GroupSpec(name="a"), GroupSpec(name="b", mode="broadcast", laggard="detach")),
        "keys": KEYS,
        "max_consumers": 3,
        "credit_batches": 2,
        "credit_bytes": 2**20,
        "silent_s": 1,
        "grace_s": 2,
        "drain_s": 3,
        "exit_when_idle": True,
        "journal": tmp_path / "journal",
        "log_format": "json",
    }
    spec = configured(**given)
    assert {name: getattr(spec, name) for name in given} == given
    assert spec.config.run.batch_slots == 3 * 2 + 4


@pytest.mark.parametrize("one", list(declared(ServiceSettings)), ids=lambda one: one.name)
def test_every_setting_of_a_service_is_checked_by_its_name(
    configured: Configured, one: Declared
) -> None:
    """What is no value of any setting is refused, wherever it was given."""
    with pytest.raises(ConfigError, match=one.key):
        configured(**{one.name: object()})


@pytest.mark.parametrize("one", list(declared(GroupSpec)), ids=lambda one: one.name)
def test_every_setting_of_a_group_is_checked_by_its_name(
    configured: Configured, one: Declared
) -> None:
    """With the name of the group."""
    wrong: dict[str, Any] = {one.name: object()}
    group = GroupSpec(name="a", **wrong)
    with pytest.raises(ConfigError, match=f"groups.a.{one.name}="):
        configured(groups=(group,))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"groups": ()}, "groups is empty; give at least one"),
    ({"groups": (GroupSpec(name=""),)}, "'' is not a name; use 1 to 64 letters"),
    ({"groups": (GroupSpec(name="a b"),)}, "'a b' is not a name"),
    ({"groups": (GroupSpec(name="a\n"),)}, "is not a name"),
    ({"groups": (GroupSpec(name="x" * 65),)}, "is not a name"),
    ({"groups": (GroupSpec(name="a"), GroupSpec(name="a"))}, "'a' comes twice; give each its own"),
    ({"groups": (GroupSpec(name="a", mode="all"),)}, r"groups.a.mode='all' .* 'shard'"),  # type: ignore[arg-type]
    ({"groups": (GroupSpec(name="a", laggard="x"),)}, r"groups.a.laggard='x' .* 'block'"),  # type: ignore[arg-type]
    (
        {"groups": (GroupSpec(name="a", mode="broadcast", max_lag_batches=0),)},
        "groups.a.max_lag_batches=0 must be an integer of at least 1",
    ),
    *(
        ({name: value}, f"{name}=.* must be above 0")
        for name in ("silent_s", "grace_s", "drain_s")
        for value in (0, -1.0)
    ),
    ({"drain_s": float("nan")}, "drain_s=nan must be a number"),
    ({"silent_s": 5, "grace_s": 5}, "must be below grace_s=5.0; lower silent_s or raise grace_s"),
    ({"max_consumers": 0}, "max_consumers=0 must be an integer of at least 1"),
    ({"credit_batches": 0}, "credit_batches=0 must be"),
    ({"credit_batches": True}, "credit_batches=True must be"),
    ({"credit_bytes": 100}, "credit_bytes=100 is less than one batch, .*; raise credit_bytes"),
    ({"max_consumers": 256}, "need 1028 .* at most 1024 .*; lower max_consumers or credit_b"),
    ({"log_format": "xml"}, "log_format='xml' is unknown; choose one of 'text', 'json'"),
    ({"exit_when_idle": 1}, "exit_when_idle=1 must be True or False"),
    ({"journal": Path("/")}, "is a folder; name a file"),
    ({"journal": Path("/absent/journal")}, "its folder is not there; make it"),
    ({"binds": ()}, "bind has 0 addresses; give 1 to 8"),
    ({"binds": tuple(f"tcp://127.0.0.1:{port}" for port in range(1, 10))}, "bind has 9 addresses"),
    ({"binds": (LOCAL, LOCAL)}, "twice; leave one out"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_wrong_setting_is_refused_with_its_remedy(
    configured: Configured, settings: dict[str, Any], message: str
) -> None:
    """As a ConfigError that names the field."""
    with pytest.raises(ConfigError, match=message):
        configured(**settings)


def test_what_cannot_be_shared_is_refused(configured: Configured) -> None:
    """Classes of the user, and an order that differs between consumers."""
    with pytest.raises(ConfigError, match=r"classes of your own .*; use LightDL in each process"):
        configured({"bigchunkloader": type("Own", (BigChunkLoader,), {})})
    with pytest.raises(ConfigError, match=r"order='relaxed' .* use order=\"strict\""):
        configured({"order": "relaxed"})


def test_every_consumer_can_hold_its_credit_and_the_stream_goes_on(configured: Configured) -> None:
    """Fewer slots than consumers times credit, and four, are refused, with the number."""
    settings = {"max_consumers": 3, "credit_batches": 2}
    assert configured({"batch_slots": 10}, **settings).config.run.batch_slots == 10
    with pytest.raises(
        ConfigError, match=r"batch_slots=9 .* need 10; raise batch_slots .* lower max_consumers"
    ):
        configured({"batch_slots": 9}, **settings)


def test_the_lag_of_a_broadcast_fits_into_the_slots(configured: Configured) -> None:
    """Given slots bound it; slots that nobody gave grow with it, as far as there may be any."""
    few: dict[str, Any] = {"max_consumers": 1, "credit_batches": 1}

    def lag(batches: int) -> tuple[GroupSpec, ...]:
        return GroupSpec(name="a", mode="broadcast", max_lag_batches=batches), GroupSpec(name="b")

    assert configured({"batch_slots": 10}, groups=lag(6), **few)
    with pytest.raises(ConfigError, match=r"a.max_lag_batches=7 must be at most 6.*; lower it or"):
        configured({"batch_slots": 10}, groups=lag(7), **few)
    assert configured(groups=lag(7), **few).config.run.batch_slots == 11
    with pytest.raises(ConfigError, match="must be at most 1020"):
        configured(groups=lag(1021), **few)


def test_the_memory_of_all_groups_is_promised_together(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups need twice what one needs, and are refused where only one fits."""
    each = sum(configured().config.run.memory_bytes)
    monkeypatch.setattr(service_configure, "available_memory", lambda: 2 * each - 1)
    two = (GroupSpec(name="a"), GroupSpec(name="b"))
    assert configured()
    with pytest.raises(MemoryLimitError, match=r"2 groups of .*; have fewer groups, or lower"):
        configured(groups=two)
    monkeypatch.setattr(service_configure, "available_memory", lambda: 2 * each)
    assert configured(groups=two)


def test_labels_that_can_travel_do_and_the_others_are_named_once(
    coordinate_slides: dict[str, CoordinateSlide],
    configured: Configured,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Numbers, text, truth values, None, lists, out of numpy as well; one warning for the rest.

    What cannot for one patient stays behind for all, or it would look as if it was missing there.
    """
    good = {"i": 1, "f": 0.5, "s": "é", "b": True, "n": None}
    numpy = {"i32": np.int32(-3), "f32": np.float32(0.5), "yes": np.bool_(True), "t": np.str_("x")}
    lists = {"list": [1, None], "array": np.array([0.5, np.nan]), "nan": float("nan")}
    bad: dict[str, object] = {
        "nested": [[1], [2]],
        "long": [1] * 1001,
        "complex": np.complex64(1),
        "bytes": b"x",
        "broken": "\udcff",
    }
    good_once: list[dict[str, object]] = [{"nested": 1}, bad, bad]
    dataset = Dataset(
        "d",
        [
            Patient(
                number,
                {"slide": Record("", path, {}, bad), **good, **numpy, **lists, **more},
                name=f"p{number}",
            )
            for number, (path, more) in enumerate(zip(coordinate_slides, good_once, strict=True))
        ],
    )
    with caplog.at_level(logging.WARNING, "chunkdl"):
        spec = configured(dataset=dataset)
    facts = spec.patients

    assert [(fact.id, fact.name) for fact in facts] == [(0, "p0"), (1, "p1"), (2, "p2")]
    plain = {"i32": -3, "f32": 0.5, "yes": True, "t": "x", "list": (1, None), "nan": None}
    for fact in facts:
        assert fact.labels == {**good, **plain, "array": (0.5, None)}
        known = (int, float, str, bool, tuple, type(None))
        assert all(type(value) in known for value in fact.labels.values())
    assert spec.slide_labels == ({}, {}, {})
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert warning.endswith(": broken, bytes, complex, long, nested")


def test_labels_of_a_patient_that_fill_a_message_are_refused(
    coordinate_slides: dict[str, CoordinateSlide], configured: Configured
) -> None:
    """Before anything starts: a consumer could never be told of the patient."""
    path = next(iter(coordinate_slides))
    dataset = Dataset("d", [Patient(0, {"s": Record("", path), "text": "x" * 40_000}, name="P")])
    with pytest.raises(ConfigError, match=r"patient P: its labels take 400.. bytes, and a service"):
        configured(dataset=dataset)


# ---- Addresses.


def test_addresses_that_can_be_bound_are_taken(tmp_path: Path) -> None:
    """Sockets by their path, IPv4, IPv6 in brackets, names, and all addresses of the machine."""
    check_addresses((f"ipc://{tmp_path}/s", "tcp://1.2.3.4:1", "tcp://[::1]:65535"))
    check_addresses(("tcp://gpu-7.example.org:5555", "tcp://*:5555", "tcp://localhost:5555"))


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("", 'is not an address; write "ipc:///absolute/path" or "tcp://host:port"'),
        ("service.sock", "is not an address"),
        ("inproc://x", "is not an address"),
        ("ipc://service", "absolute path; write ipc:///absolute/path"),
        ("ipc:///tmp/", "names no file"),
        ("ipc:///tmp/a\0b", "names no file"),
        ("ipc:///absent/service", "there is no folder /absent"),
        ("tcp://host", 'write "tcp://host:port"'),
        ("tcp://host:", 'write "tcp://host:port"'),
        ("tcp://:5555", 'write "tcp://host:port"'),
        ("tcp://host:http", 'write "tcp://host:port"'),
        ("tcp://::1:5555", "an IPv6 address in brackets"),
        ("tcp://127.0.0.1:5555\n", "is not an address"),
        ("tcp://host:0", "port of tcp://host:0 must lie between 1 and 65535"),
        ("tcp://host:65536", "must lie between 1 and 65535"),
        ("tcp://[1.2.3.4]:5", "no IPv6 address in its brackets"),
        ("tcp://[]:5", "no IPv6 address in its brackets"),
    ],
)
def test_an_address_that_cannot_be_bound_is_refused(
    configured: Configured, bind: str, message: str
) -> None:
    """With how it is written."""
    with pytest.raises(ConfigError, match=message):
        configured(binds=(bind,))


def test_a_path_is_as_long_as_the_kernel_takes_it() -> None:
    """100 bytes with the lease beside it, counted as bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        letters, more = divmod(100 - len(f"{folder}/.lease"), 2)
        path = f"{folder}/{'é' * letters}{'x' * more}"
        assert len(os.fsencode(f"{path}.lease")) == 100
        check_addresses((f"ipc://{path}",))
        with pytest.raises(ConfigError, match=r"has 101 bytes, at most 100 .*; choose a shorter"):
            check_addresses((f"ipc://{path}x",))


HOSTS = (
    *("0.0.0.0", "*", "10.0.0.1", "[::]", "[2001:db8::1]", "gpu-7", "127.1"),
    *("127.0.0.1", "127.255.0.3", "[::1]", "localhost"),
)


@pytest.mark.parametrize("host", HOSTS)
def test_a_tcp_address_needs_keys(configured: Configured, host: str) -> None:
    """Also one of this machine, which has other users; and also as one of several."""
    bind = f"tcp://{host}:5555"
    with pytest.raises(ConfigError, match=r"has no keys.*bind an ipc .* say insecure=true"):
        configured(binds=(LOCAL, bind))
    assert configured(binds=(bind,), keys=KEYS).keys == KEYS
    assert configured(binds=(bind,), insecure=True).keys is None


def test_keys_that_let_nobody_in_are_refused(configured: Configured, tmp_path: Path) -> None:
    """An empty folder of clients, and keys together with insecure."""
    _, secret = create_keys("server", tmp_path)
    (tmp_path / "clients").mkdir(mode=0o700)
    keys = load_server_keys(secret, tmp_path / "clients")
    for bind in ("tcp://10.0.0.1:5555", "tcp://127.0.0.1:5555"):
        with pytest.raises(ConfigError, match=r"nobody may connect .* put the"):
            configured(binds=(bind,), keys=keys)
    with pytest.raises(ConfigError, match=r"insecure and keys contradict .*; leave one out"):
        configured(keys=KEYS, insecure=True)


def test_positions_lie_where_nobody_else_can_write(configured: Configured, tmp_path: Path) -> None:
    """The folder, and a file that is there, before it is read."""
    folder = tmp_path / "positions"
    folder.mkdir(mode=0o700)
    file = folder / "journal"
    configured(journal=file)
    file.write_text("")
    file.chmod(0o644)
    configured(journal=file)
    file.chmod(0o666)
    with pytest.raises(ConfigError, match=f"chmod go-w {file}"):
        configured(journal=file)
    file.chmod(0o600)
    folder.chmod(0o770)
    with pytest.raises(ConfigError, match=f"chmod 700 {folder}"):
        configured(journal=file)


def test_masks_that_everybody_may_write_are_refused(configured: Configured, tmp_path: Path) -> None:
    """Of a service as of a loader of one's own."""
    masks = tmp_path / "masks"
    masks.mkdir()
    masks.chmod(0o1777)
    with pytest.raises(ConfigError, match=rf"everybody may write to {masks} .*tissue masks"):
        configured({"mask_cache": masks})


# ---- The runtime folder.


def test_the_default_address_lies_in_a_folder_of_its_own(runtime: Path) -> None:
    """Made for its owner alone whatever the umask, used again the next time, and bindable."""
    before = os.umask(0)
    try:
        address = default_address()
    finally:
        os.umask(before)

    assert address == f"ipc://{runtime}/chunkdl/service" == default_address()
    assert stat.S_IMODE((runtime / "chunkdl").stat().st_mode) == 0o700
    check_addresses((address,))


@pytest.mark.parametrize("variable", [None, "", "relative"])
def test_without_a_runtime_folder_one_is_made_among_temporary_files(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by the user's number; a relative name counts as none."""
    monkeypatch.setattr(service_addresses, "TEMPORARY", tmp_path)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", variable)
    assert default_address() == f"ipc://{tmp_path}/chunkdl-{os.getuid()}/service"


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o720, 0o777])
def test_a_runtime_folder_that_is_open_to_others_is_refused(runtime: Path, bits: int) -> None:
    """With the command that mends it."""
    (runtime / "chunkdl").mkdir()
    (runtime / "chunkdl").chmod(bits)
    with pytest.raises(ConfigError, match=f"open to others; chmod 700 {runtime}/chunkdl"):
        default_address()


def test_a_runtime_folder_of_somebody_else_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner, and a link or a file in its place."""
    (runtime / "mine").mkdir(mode=0o700)
    (runtime / "chunkdl").symlink_to("mine")
    with pytest.raises(ConfigError, match=r"belongs to somebody else; give service\.bind"):
        default_address()
    (runtime / "chunkdl").unlink()
    (runtime / "chunkdl").mkdir(mode=0o700)
    assert default_address()
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody_else)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        default_address()


def test_a_runtime_folder_that_cannot_be_made_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to set instead."""
    (runtime / "chunkdl").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be used: File exists; give service\.bind"):
        default_address()
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{runtime}/absent")
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        default_address()

"""The rules of the layout, read off the source: who imports whom, and what an import does."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOTS = (REPOSITORY, REPOSITORY / "workers")

# ---- The rules. A new file needs its place here; a file that does not exist yet is no error.

LAYER_OF_MODULE = {
    "chunkdl.errors": "values",
    "chunkdl.seeding": "values",
    "chunkdl.patients": "values",
    "chunkdl.manifest": "values",
    "chunkdl.labels": "values",
    "chunkdl.cells": "values",
    "chunkdl.tables": "values",
    "chunkdl.chunks": "values",
    "chunkdl.layouts": "values",
    "chunkdl.slides.slide": "values",
    "chunkdl.slides.resolution": "values",
    "chunkdl.slides.address": "values",
    # Which files are one slide, by their headers: no pixels, and nothing else of the readers.
    "chunkdl.slides.readers.dicom_series": "values",
    "chunkdl.slides.readers.dicom_header": "values",
    "chunkdl.slides.readers.dicom_tags": "values",
    "chunkdl.slides.readers.refusals": "values",
    "chunkdl.slides.microns": "values",
    "chunkdl.slide_search": "values",
    "chunkdl.printing": "values",
    "chunkdl.private_files": "values",
    "chunkdl.steady_log": "values",
    "chunkdl.awake_clock": "values",
    "chunkdl.config": "configuration",
    "chunkdl.notes": "memory",
    "chunkdl.user_code": "values",
    "chunkdl.open_slides": "tasks",
    "chunkdl.hooks": "tasks",
    "chunkdl.hook_tools": "tasks",
    "chunkdl.tissue_hooks": "tasks",
    "chunkdl.extracting": "tasks",
    "chunkdl.patient_copies": "tasks",
    "chunkdl.collecting": "tasks",
    "chunkdl.row_writer": "tasks",
    "chunkdl.transforms": "tasks",
    "chunkdl.random_generators": "tasks",
    "chunkdl.generator_search": "tasks",
    "chunkdl.seeded_code": "tasks",
    "chunkdl.same_results": "tasks",
    "chunkdl.loading": "tasks",
    "chunkdl.cropping": "tasks",
    "chunkdl.arguments": "edges",
    "chunkdl.settings": "edges",
    "chunkdl.user_settings": "edges",
    "chunkdl.journal": "edges",
    "chunkdl.assembly": "edges",
    "chunkdl.slide_table": "edges",
    "chunkdl.header_facts": "edges",
    "chunkdl.usable_slides": "edges",
    "chunkdl.machine": "edges",
    "chunkdl.cgroups": "edges",
    "chunkdl.lightdl": "edges",
    "chunkdl.loader": "edges",
    "chunkdl.iteration": "edges",
    "chunkdl.callers": "edges",
    "chunkdl.arrays": "edges",
    "chunkdl.array_kinds": "edges",
    "chunkdl.batch_rows": "edges",
    "chunkdl.sections": "edges",
    "chunkdl.moves": "edges",
    "chunkdl.finishing": "edges",
    "chunkdl.wakeups": "edges",
    "chunkdl.contexts": "edges",
    "chunkdl.columns": "edges",
    "chunkdl.label_tables": "edges",
    "chunkdl.service_labels": "edges",
    "chunkdl.statistics": "edges",
    "chunkdl.consumer": "edges",
    "chunkdl.tensors": "edges",
    "chunkdl.buffers": "edges",
    "chunkdl.pinned": "edges",
    "chunkdl.cli": "edges",
    "chunkdl.service_spec": "edges",
    "chunkdl.service_process": "edges",
    "chunkdl.connecting": "edges",
    "chunkdl.merged": "edges",
    "chunkdl.ddp": "edges",
    "chunkdl.ranks": "edges",
    "chunkdl.rank_loader": "edges",
    "chunkdl.machines": "edges",
    "chunkdl.meeting": "edges",
    "chunkdl.connection": "edges",
    "chunkdl.session_thread": "edges",
    "chunkdl.arrivals": "edges",
    "chunkdl.coordinator_process": "edges",
    "chunkdl.child_program": "edges",
    "chunkdl.child_imports": "edges",
    "chunkdl.stderr_tail": "edges",
    "chunkdl.shared": "edges",
    "chunkdl.shared_assembly": "edges",
    "chunkdl.shared_state": "edges",
    "chunkdl.wire": "edges",
    "chunkdl.operator": "edges",
    "chunkdl.service_cli": "edges",
    "chunkdl.service_settings": "edges",
    "chunkdl.service_addresses": "edges",
    "chunkdl.daemon_config": "edges",
    "chunkdl.daemon_explain": "edges",
    "chunkdl.curve_keys": "edges",
    "chunkdl.inspect": "edges",
    "chunkdl.demo": "edges",
    "chunkdl.__main__": "edges",
    "chunkdl": "edges",
}
"""Single files; a file of a package belongs to the layer that has the package's name."""

MAY_IMPORT: Mapping[str, set[str]] = {
    "values": {"values"},
    "slides": {"values", "slides"},
    "tissue": {"values", "tissue", "slides"},
    "plan": {"values", "plan", "chunkdl.tissue.mask", "chunkdl.tissue.box_shares"},
    "memory": {"values", "memory"},
    "protocol": {"values", "protocol", "chunkdl.plan.shares", "chunkdl.plan.rules"},
    # It names a detector and a policy; neither reads a slide.
    "configuration": {"values", "chunkdl.tissue.detectors", "chunkdl.plan.policies"},
    "coordination": {"values", "configuration", "plan", "memory", "protocol", "coordination"},
    "tasks": {"values", "configuration", "slides", "tissue", "plan", "memory", "protocol", "tasks"},
    "edges": {
        *("values", "slides", "tissue", "plan", "memory", "protocol"),
        *("configuration", "coordination", "tasks", "edges"),
    },
    # PyDmed's names over the public interface.
    "pydmed": {"pydmed", "values", "plan", "tasks", "edges", "slides", "tissue"},
}
"""Which layers, or single modules of them, a layer may import."""

EVERYWHERE = {"numpy", "msgspec"}
"""Third-party libraries that any file may import."""

ONLY_IN: Mapping[str, set[str]] = {
    "cloudpickle": {
        *("chunkdl/coordinator_process.py", "chunkdl/user_settings.py"),
        *("chunkdl/memory/packing.py", "chunkdl/service_cli.py", "chunkdl/service_process.py"),
    },
    "imagecodecs": {"chunkdl/slides/"},
    "msgpack": {"chunkdl/protocol/codec.py"},
    "openslide": {"chunkdl/slides/readers/openslide.py"},
    "PIL": {"chunkdl/slides/", "chunkdl/tissue/", "chunkdl/inspect.py", "chunkdl/demo.py"},
    "psutil": {"chunkdl/machine.py", "chunkdl/pydmed/utils/multiproc.py"},
    "pyarrow": {"chunkdl/tables.py"},
    "pydicom": {"chunkdl/slides/readers/"},
    "skimage": {"chunkdl/tissue/"},
    "tifffile": {"chunkdl/slides/readers/", "chunkdl/slides/synthetic.py"},
    "torch": {"chunkdl/tensors.py", "chunkdl/meeting.py", "chunkdl/pinned.py"},
    "zmq": {
        *("chunkdl/consumer.py", "chunkdl/contexts.py", "chunkdl/curve_keys.py"),
        "chunkdl/wire.py",
        *("chunkdl/session_thread.py", "workers/chunkdl_workers/"),
    },
}
"""Every other library, and the files, or folders with a slash, that may import it."""

PURE = ("chunkdl.plan", "chunkdl.protocol", "chunkdl.coordination", "chunkdl.memory.slots")
"""Modules and packages that decide; the processes around them act."""

IMPURE = {
    *("asyncio", "concurrent", "ctypes", "datetime", "fcntl", "mmap", "multiprocessing", "os"),
    *("random", "secrets", "select", "selectors", "signal", "socket", "subprocess", "tempfile"),
    *("threading", "time", "uuid", "zmq"),
}
"""Clocks, processes, sockets, the environment, and random numbers that no seed names."""

LISTENING = "workers/chunkdl_workers/listening.py"
"""The only file that makes a socket to which others connect."""
BINDS = {
    *("bind", "bind_to_random_port", "listen", "create_server", "start_server"),
    *("start_unix_server", "create_unix_server"),
}
"""Methods and functions that do so, of ZeroMQ, socket and asyncio."""

MAX_LINES = 400
LONG_FILES: Mapping[str, int] = {
    "chunkdl/slides/readers/dicom_header.py": 410,  # every field that a header is asked for
    "chunkdl/memory/packing.py": 440,  # what is written, and beside it what reads it again
    "chunkdl/protocol/messages.py": 470,  # every message, and nothing else
    "chunkdl/coordination/group.py": 500,  # who gets which rows, and what is kept for them
    "chunkdl/coordination/loads.py": 450,  # what loaders do, and what replaces what they cannot
    "chunkdl/coordination/desk.py": 500,  # what each message of a consumer does
    "workers/chunkdl_workers/server.py": 550,  # each event in, each action out
    "chunkdl/consumer.py": 420,  # one session: what is heard, taken and given back, and who is dead
    "chunkdl/wire.py": 420,  # every socket to a service: opened, watched, read and closed
    "chunkdl/plan/policies.py": 420,  # every policy that comes with it
    "chunkdl/lightdl.py": 660,  # every argument, said once, and the way of a batch to the user
}
"""Files that are longer, and how long they may become; each is still one concept."""

CLOCKS: Mapping[str, set[str]] = {
    "chunkdl.awake_clock": {"time.monotonic"},
    # What users are shown, or how often they are told.
    "chunkdl.lightdl": {"time.monotonic"},
    "chunkdl.shared": {"time.monotonic"},
    "chunkdl.demo": {"time.monotonic"},
    "chunkdl.pydmed.streamcollector": {"time.monotonic"},
    "chunkdl.pydmed.utils.output": {"time.monotonic"},
    # Compared for being another one, and by order: no difference of them is a silence.
    "chunkdl.memory.recorder": {"time.monotonic"},
    "chunkdl_workers.supervisor": {"time.monotonic"},
    # Deaths are forgotten by it, and nobody is blamed.
    "chunkdl_workers.coordinator": {"time.monotonic"},
    "chunkdl_workers.loader": {"time.perf_counter"},
}
"""Which clock a module reads, and what for. A limit on others counts waits; see `AwakeClock`."""

ALL_CLOCKS = {
    *("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"),
    *("time_ns", "monotonic_ns", "perf_counter_ns"),
}

WAITS = {"wait", "join", "acquire", "term", "communicate"}
"""Calls that wait for others, for ever where they have no argument."""

ENDLESS_WAITS: Mapping[str, set[str]] = {
    # Of the thread that does something whole, which takes moments.
    "chunkdl.sections": {"over.acquire"},
    # A ledger, no lock.
    "chunkdl.coordination.loads": {"self.slots.acquire"},
    "chunkdl.coordination.batches": {"self.slots.acquire"},
    # All answers are here; the threads have nothing more to do.
    "chunkdl.header_facts": {"thread.join"},
    # A thread of its own, for what a child writes, until the child has ended.
    "chunkdl.stderr_tail": {"poll.poll"},
    # A thread of its own, for clients that come; it is woken to end.
    "chunkdl_workers.authentication": {"poller.poll"},
    # Read where it is readable, and written without waiting where the other end may stand still.
    "chunkdl.memory.passing": {"end.settimeout"},
}
"""Those of them without one, by module; each has its reason."""

SAYS_NOTHING = {
    "base",
    "common",
    "core_utils",
    "helper",
    "helpers",
    "manager",
    "misc",
    "util",
    "utils",
}

NAMED_BY_PYDMED = "chunkdl.pydmed"
"""Modules below it have the names that PyDmed's programs import."""

# ---- Reading the source.


@dataclass(frozen=True, slots=True)
class Module:
    """One source file.

    Attributes:
        name: dotted; a package is its ``__init__``.
        file: path inside the repository, with slashes.
        imports: names of our modules and of third-party ones that it imports anywhere in the
            file, also inside functions, but not under ``if TYPE_CHECKING``.
    """

    name: str
    file: str
    imports: frozenset[str]


def dotted(path: Path, root: Path) -> str:
    """The name under which the file at `path` is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement below `node` that runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from statements(other)
        else:
            yield from statements(child)


def imported(
    statement: ast.Import | ast.ImportFrom, package: str, ours: Iterable[str]
) -> Iterator[str]:
    """The modules that one statement in a file of `package` imports."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    origin = statement.module or ""
    if statement.level:
        above = package.split(".")[: len(package.split(".")) - statement.level + 1]
        origin = ".".join([*above, origin] if origin else above)
    for alias in statement.names:
        whole = f"{origin}.{alias.name}"
        yield whole if whole in ours else origin


def read_modules() -> dict[str, Module]:
    """Every module of both packages, by name."""
    files = {
        dotted(path, root): path
        for root, top in zip(ROOTS, ("chunkdl", "chunkdl_workers"), strict=True)
        for path in sorted((root / top).rglob("*.py"))
    }
    modules = {}
    for name, path in files.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        found = statements(ast.parse(path.read_text(), filename=str(path)))
        imports = {target for node in found for target in imported(node, package, files)}
        file = path.relative_to(REPOSITORY).as_posix()
        modules[name] = Module(name, file, frozenset(imports))
    return modules


MODULES = read_modules()


def layer(module: str) -> str | None:
    """The layer of a module of chunkdl; None when nobody has given it a place."""
    if module in LAYER_OF_MODULE:
        return LAYER_OF_MODULE[module]
    parts = module.split(".")
    in_package = len(parts) > 2 or (REPOSITORY / "chunkdl" / parts[1]).is_dir()
    return parts[1] if in_package and parts[1] in MAY_IMPORT else None


def is_below(module: str, package: str) -> bool:
    """Whether `module` is `package` or lies in it."""
    return module == package or module.startswith(f"{package}.")


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """The names along one cycle of the graph, empty when it has none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in edges.get(name, ()):
            if cycle := visit(other, [*path, name]):
                return cycle
        done.add(name)
        return []

    return next((cycle for name in edges if (cycle := visit(name, []))), [])


# ---- The tests.


def test_the_library_never_imports_the_workers() -> None:
    """chunkdl starts the processes by module name; only the processes import the library."""
    wrong = [
        f"{module.file} imports {name}"
        for module in MODULES.values()
        if is_below(module.name, "chunkdl")
        for name in module.imports
        if is_below(name, "chunkdl_workers")
    ]
    assert wrong == []


def test_every_module_of_the_library_has_a_layer() -> None:
    """A new file cannot escape the rules by being unknown to them."""
    homeless = [
        m.file for m in MODULES.values() if is_below(m.name, "chunkdl") and not layer(m.name)
    ]
    assert homeless == []


def test_imports_go_one_way_through_the_layers() -> None:
    """values; slides, tissue, plan, memory, protocol; configuration; coordination, tasks; edges."""
    wrong = []
    for module in MODULES.values():
        if not is_below(module.name, "chunkdl") or layer(module.name) is None:
            continue
        allowed = MAY_IMPORT[layer(module.name) or ""]
        wrong += [
            f"{module.file} ({layer(module.name)}) imports {name} ({layer(name)})"
            for name in module.imports
            if is_below(name, "chunkdl") and not {layer(name), name} & allowed
        ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Each module can be read, and imported, after those that it imports."""
    assert find_cycle({name: module.imports for name, module in MODULES.items()}) == []


def test_a_circle_of_imports_would_be_found() -> None:
    """The search that the test above relies on finds a cycle behind a dead end."""
    assert find_cycle({"a": ["b", "c"], "b": [], "c": ["d"], "d": ["c"]}) == ["c", "d", "c"]


def test_third_party_libraries_stay_in_the_files_that_are_named_for_them() -> None:
    """Each library can be replaced by looking at a few files."""
    wrong = []
    for module in MODULES.values():
        libraries = {name.split(".")[0] for name in module.imports}
        libraries -= {*sys.stdlib_module_names, *EVERYWHERE, "chunkdl", "chunkdl_workers"}
        wrong += [
            f"{module.file} imports {library}"
            for library in libraries
            if not any(
                module.file == place or (place.endswith("/") and module.file.startswith(place))
                for place in ONLY_IN.get(library, ())
            )
        ]
    assert wrong == []


def test_modules_that_decide_know_no_clock_no_process_and_no_socket() -> None:
    """The plan, the protocol, the ledger and the coordination are functions of their inputs."""
    wrong = [
        f"{module.file} imports {name}"
        for module in MODULES.values()
        if any(is_below(module.name, package) for package in PURE)
        for name in module.imports
        if name.split(".")[0] in IMPURE
    ]
    assert wrong == []


def test_sockets_that_others_connect_to_are_bound_in_one_file() -> None:
    """There the kernel is asked who connects, before anything of theirs is read."""
    wrong = [
        f"{module.file}:{node.lineno} calls {node.func.attr}"
        for module in MODULES.values()
        if module.file != LISTENING
        for node in ast.walk(ast.parse((REPOSITORY / module.file).read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in BINDS
    ]
    assert wrong == []


def calls_in(module: Module) -> Iterator[ast.Call]:
    """Every call in a file."""
    tree = ast.parse((REPOSITORY / module.file).read_text())
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_only_modules_that_are_named_for_it_read_a_clock() -> None:
    """And none but for what is shown, or counted by waits: clocks of the day nobody reads.

    After the whole job was stopped, a difference of a clock says that everybody was silent.
    """
    found: dict[str, set[str]] = {}
    for name, module in MODULES.items():
        for call in calls_in(module):
            asked = ast.unparse(call.func)
            owner, _, last = asked.rpartition(".")
            day = last in ("now", "utcnow", "today") and "date" in owner
            if (owner == "time" and last in ALL_CLOCKS) or day:
                found.setdefault(name, set()).add(asked)
            assert asked not in ALL_CLOCKS - {"time"}, f"{name} calls {asked} by its bare name"
    assert found == CLOCKS


def test_nothing_waits_for_others_without_a_limit() -> None:
    """Children, threads, locks and contexts have one, or stand in the table with the reason."""
    found: dict[str, set[str]] = {}
    for name, module in MODULES.items():
        for call in calls_in(module):
            asked, given = ast.unparse(call.func), [*call.args, *call.keywords]
            waits = asked.rpartition(".")[2] in WAITS or asked in ("poll.poll", "poller.poll")
            blocks = asked.endswith(".settimeout") and ast.unparse(call.args[0]) == "None"
            if blocks or (waits and not given):
                found.setdefault(name, set()).add(asked)
    assert found == ENDLESS_WAITS


def test_no_file_is_long_without_an_entry_in_the_table() -> None:
    """A file that grows past the limit is split, or somebody says why it is still one thing."""
    sizes = {m.file: len((REPOSITORY / m.file).read_text().splitlines()) for m in MODULES.values()}
    long = {file: n for file, n in sizes.items() if n > LONG_FILES.get(file, MAX_LINES)}
    assert long == {}


def test_every_module_is_named_after_what_it_holds() -> None:
    """No module has a name under which anything could be put."""
    vague = [
        m.file
        for m in MODULES.values()
        if set(m.name.split(".")) & SAYS_NOTHING and not is_below(m.name, NAMED_BY_PYDMED)
    ]
    assert vague == []


WATCH_IMPORTS = """
import importlib, json, os, sys, threading

caught = []
ACTS = {
    "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system",
    "socket.__new__", "os.mkdir", "os.remove",
}

def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (
        os.O_WRONLY | os.O_RDWR | os.O_CREAT
    )
    if event in ACTS or writes:
        caught.append([module, event, repr(arguments)[:200]])

before = dict(os.environ)
sys.addaudithook(watch)
for module in sys.argv[1:]:
    importlib.import_module(module)
for thread in threading.enumerate()[1:]:
    caught.append(["any of them", "thread", thread.name])
for name in before.keys() | os.environ.keys():
    if before.get(name) != os.environ.get(name):
        caught.append(["any of them", "os.environ", name])
json.dump({"caught": caught, "modules": sorted(sys.modules)}, sys.stdout)
"""


def watch_imports(modules: Iterable[str]) -> tuple[list[list[str]], set[str]]:
    """What a fresh Python does when it imports `modules`, and what it has imported afterwards.

    Returns:
        ([module, event, arguments] per act that was seen, names of all imported modules).
    """
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH_IMPORTS, *modules],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ROOTS))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["caught"], set(answer["modules"])


def test_importing_starts_nothing() -> None:
    """No process, thread or socket, no file written, no variable of the environment changed."""
    caught, _ = watch_imports(sorted(name for name in MODULES if not name.endswith("__main__")))
    assert caught == []


@pytest.mark.parametrize(
    "names",
    [["chunkdl"], [name for name in MODULES if is_below(name, "chunkdl_workers")]],
    ids=["library", "workers"],
)
def test_importing_the_library_or_the_workers_does_not_import_torch(names: list[str]) -> None:
    """A worker saves the few hundred megabytes that torch takes."""
    _, loaded = watch_imports(names)
    assert set(names) <= loaded
    assert "torch" not in loaded


def test_importing_the_modules_that_decide_loads_no_reader_and_no_socket() -> None:
    """What the source does not import, a package's ``__init__`` does not bring in either."""
    names = [name for name in MODULES if any(is_below(name, package) for package in PURE)]
    _, loaded = watch_imports(names)
    assert (
        loaded & {"openslide", "tifffile", "imagecodecs", "zmq", "torch", "chunkdl_workers"}
        == set()
    )

"""The rules of the layout, read off the source: who imports whom, and what an import does."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOTS = (REPOSITORY, REPOSITORY / "workers")

# ---- The rules. A new file needs a room; what the room may import says its floor.

FLOORS = (
    *("system", "errors", "slides", "annotations", "dataset", "sampling", "transport", "patches"),
    *("engine", "survey", "service", "consumers", "pydmed", "commands"),
)
"""The folders of `chunkdl/`, and `errors.py`, ground floor first; each imports from below only."""

SEPARATE = (
    ("chunkdl.annotations", "chunkdl.slides.tissue"),
    ("chunkdl.engine.decisions", "chunkdl.engine.work"),
    ("chunkdl.engine.decisions", "chunkdl.engine.settings"),
    ("chunkdl.service.decisions", "chunkdl.service.client"),
    ("chunkdl.slides.tissue", "chunkdl.slides.readers"),
    ("chunkdl.transport.memory", "chunkdl.transport.protocol"),
)
"""Rooms on the same floor that do not know each other."""

EVERYWHERE = {"numpy", "msgspec"}
"""Third-party libraries that any file may import."""

ONLY_IN: Mapping[str, set[str]] = {
    "cloudpickle": {
        *("chunkdl/engine/coordinator_process.py", "chunkdl/engine/settings/users_code.py"),
        *(
            "chunkdl/transport/memory/packing.py",
            "chunkdl/commands/service.py",
            "chunkdl/service/process.py",
            "chunkdl/system/packed_function.py",
            "chunkdl/survey/processes.py",
        ),
    },
    "imagecodecs": {"chunkdl/slides/"},
    "msgpack": {"chunkdl/transport/protocol/codec.py"},
    "onnxruntime": {"chunkdl/slides/tissue/detectors/onnx_tissue.py"},
    "openslide": {"chunkdl/slides/readers/openslide.py"},
    "PIL": {
        "chunkdl/slides/",
        "chunkdl/slides/tissue/",
        "chunkdl/annotations/raster_masks.py",
        "chunkdl/commands/inspect_slides.py",
        "chunkdl/commands/labelled_patches.py",
        "chunkdl/commands/demo.py",
    },
    "psutil": {"chunkdl/engine/settings/machine.py", "chunkdl/pydmed/utils/multiproc.py"},
    "pyarrow": {"chunkdl/dataset/tables.py"},
    "pydicom": {"chunkdl/slides/readers/"},
    "shapely": {"chunkdl/annotations/mending.py"},
    "skimage": {"chunkdl/slides/tissue/detectors/"},
    "tifffile": {"chunkdl/slides/readers/", "chunkdl/slides/synthetic/writing.py"},
    "torch": {
        "chunkdl/consumers/batches/torch_batches.py",
        "chunkdl/consumers/meeting.py",
        "chunkdl/consumers/batches/pinned.py",
        "chunkdl/patches/arithmetic/torch_images.py",
        "chunkdl/patches/arithmetic/torch_maths.py",
    },
    "zmq": {
        *("chunkdl/engine/embedded.py", "chunkdl/transport/contexts.py", "chunkdl/service/keys.py"),
        "chunkdl/service/client/sockets.py",
        *("chunkdl/service/client/session_thread.py", "workers/chunkdl_workers/"),
    },
}
"""Every other library, and the files, or folders with a slash, that may import it."""

PURE = (
    "chunkdl.sampling",
    "chunkdl.transport.protocol",
    "chunkdl.engine.decisions",
    "chunkdl.service.decisions",
    "chunkdl.transport.memory.slots",
)
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
    # what is written, and beside it what reads it again
    "chunkdl/transport/memory/packing.py": 440,
    "chunkdl/engine/settings/arguments.py": 670,  # every setting of a stream, and nothing else
    # everything that a dataset is made from, with what users read about it
    "chunkdl/dataset/patients.py": 440,
    "chunkdl/transport/protocol/engine_messages.py": 490,  # every message, and nothing else
    # what loaders do, and what replaces what they cannot
    "chunkdl/engine/decisions/bigchunks.py": 510,
    "workers/chunkdl_workers/server.py": 490,  # each event in, each action out
    # one session: what is heard, taken and given back, and who is dead
    "chunkdl/engine/embedded.py": 435,
    # every socket to a service: opened, watched, read and closed
    "chunkdl/service/client/sockets.py": 420,
    # every argument, said once, and the way of a batch to the user
    "chunkdl/consumers/lightdl.py": 630,
}
"""Files that are longer, and how long they may become; each is still one concept."""

CLOCKS: Mapping[str, set[str]] = {
    "chunkdl.system.awake_clock": {"time.monotonic"},
    # What users are shown, or how often they are told.
    "chunkdl.consumers.lifetime": {"time.monotonic"},
    "chunkdl.consumers.own_engine": {"time.monotonic"},
    "chunkdl.service.client.counters": {"time.monotonic"},
    "chunkdl.commands.demo": {"time.monotonic"},
    "chunkdl.pydmed.streamcollector": {"time.monotonic"},
    "chunkdl.pydmed.utils.output": {"time.monotonic"},
    # Compared for being another one, and by order: no difference of them is a silence.
    "chunkdl.transport.flight_recorder": {"time.monotonic"},
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
    "chunkdl.system.sections": {"over.acquire"},
    # A ledger, no lock.
    "chunkdl.engine.decisions.bigchunks": {"self.slots.acquire"},
    "chunkdl.engine.decisions.batches": {"self.slots.acquire"},
    # All answers are here; the threads have nothing more to do.
    "chunkdl.slides.header_facts": {"thread.join"},
    # A thread of its own, for what a child writes, until the child has ended.
    "chunkdl.transport.stderr_tail": {"poll.poll"},
    # A thread of its own, for clients that come; it is woken to end.
    "chunkdl_workers.authentication": {"poller.poll"},
    # Read where it is readable, and written without waiting where the other end may stand still.
    "chunkdl.transport.channel": {"end.settimeout"},
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


def floor(module: str) -> int | None:
    """The floor of a module of chunkdl; None when it lies in no room."""
    room = module.split(".")[1]
    return FLOORS.index(room) if room in FLOORS else None


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


IN_NO_ROOM = {"chunkdl", "chunkdl.__main__"}
"""The public names, and the command."""


def library() -> list[Module]:
    """The modules of chunkdl that lie in a room."""
    ours = [module for module in MODULES.values() if is_below(module.name, "chunkdl")]
    return [module for module in ours if module.name not in IN_NO_ROOM]


def test_every_module_of_the_library_lies_in_a_room() -> None:
    """The top of the package holds rooms, the errors and the public names, and nothing else."""
    assert [module.file for module in library() if floor(module.name) is None] == []
    assert {module.name.split(".")[1] for module in library()} == set(FLOORS)


def test_every_room_says_what_lives_there() -> None:
    """In two or three sentences, before anything else is read."""
    rooms = [(REPOSITORY / m.file) for m in library() if m.file.endswith("__init__.py")]
    assert rooms
    assert [path for path in rooms if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_imports_go_down_only() -> None:
    """A room can be read, and understood, after those below it."""
    wrong = [
        f"{module.file} imports {name}"
        for module in library()
        for name in module.imports
        if is_below(name, "chunkdl") and name not in IN_NO_ROOM
        if (floor(name) or 0) > (floor(module.name) or 0)
    ]
    assert wrong == []


def test_rooms_of_one_floor_that_are_separate_stay_so() -> None:
    """Decisions know no work, and memory no messages; neither the other way round."""
    wrong = [
        f"{module.file} imports {name}"
        for module in library()
        for name in module.imports
        for pair in SEPARATE
        for one, other in (pair, pair[::-1])
        if is_below(module.name, one) and is_below(name, other)
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


def test_every_room_says_what_lives_there_and_what_it_imports() -> None:
    """In two sentences at least."""
    silent = []
    for file in (f for root in ROOTS for f in root.glob("chunkdl*/**/__init__.py")):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        sentences = re.findall(r"[.:](?:\s|$)", text)
        if len(sentences) < 2 or "mport" not in text:
            silent.append(str(file.relative_to(REPOSITORY)))
    assert silent == []


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

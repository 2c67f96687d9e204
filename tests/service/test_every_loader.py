"""One loader is like another: LightDL, one service near or far, several services, and ranks.

The same tests run over all of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import msgpack
import numpy as np
import psutil
import pytest
import torch
import torch.utils.dlpack
from torch.utils.data import DataLoader

from chunkdl.consumers.batches.diversity import MEASURED_EVERY
from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.loader import Loader
from chunkdl.consumers.merged import MergedDL
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import Closed, ConfigError, EndOfStream, StateError
from chunkdl.sampling.state_envelope import LOADERS, STATE_VERSION
from chunkdl.service.client.control import operate
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from tests.conftest import free_port, our_processes
from tests.interrupting import Interrupt
from tests.service.conftest import arguments


class Make:
    """Makes loaders: `here` are arguments of the loader, the others of its rows.

    Attributes:
        kind: of their states.
        addresses: of their services; none of an embedded one.
    """

    def __init__(self, begin: Callable[..., Loader], kind: str, addresses: list[str]) -> None:
        self._begin = begin
        self.kind = kind
        self.addresses = addresses

    def __call__(self, here: Any = None, **stream: Any) -> Loader:
        return self._begin(here, **stream)


GRID = {"smallchunks_per_bigchunk": None, "grid": True}


# "merged" reads two local services and "ranks" reads one.
@pytest.fixture(params=["embedded", "remote", "merged", "ranks"])
def make(
    request: pytest.FixtureRequest,
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    socket_folder: Path,
) -> Iterator[Make]:
    """Makes a loader of a small stream; `here` are arguments of the loader, `stream` of its rows.

    The second of several loaders of one test finds the same services.
    """
    # These tests start engines again and again; one loader process does for them.
    fewest = {**small_stream, "num_loaders": 1}
    with ExitStack() as stack:
        addresses: list[str] = []

        def serve(dataset: Dataset, stream: dict[str, Any]) -> str:
            address = f"ipc://{socket_folder}/{dataset.str_dsname}"
            if request.param == "remote":
                address = f"tcp://127.0.0.1:{free_port()}"
            given = arguments(**{**fewest, "batch_slots": 0, **stream})
            settings = ServiceSettings(
                binds=(address,), groups=(GroupSpec(name="train"),), insecure=True
            )
            stack.callback(ServiceProcess(configure_service(dataset, given, settings)).close)
            return address

        def begin(here: dict[str, Any] | None = None, **stream: Any) -> Loader:
            here = here or {}
            loader: Loader
            if request.param == "embedded":
                loader = LightDL(coordinate_dataset, **{**fewest, **stream, **here})
            elif request.param == "ranks":
                rank = LightDL.for_ddp(coordinate_dataset, **{**fewest, **stream, **here})
                addresses[:] = [rank._wish.address]
                loader = rank
            else:
                if not addresses:
                    parts = [coordinate_dataset]
                    if request.param == "merged":
                        parts = [Dataset(str(n), [p]) for n, p in enumerate(coordinate_dataset)]
                    addresses.extend(serve(part, stream) for part in parts)
                to: Any = addresses if request.param == "merged" else addresses[0]
                loader = connect(to, rank=0, world_size=1, **here)
            return stack.enter_context(loader)

        kinds = {"embedded": "embedded", "merged": "services"}
        yield Make(begin, kinds.get(request.param, "service"), addresses)


def test_a_pause_ends_with_resume_or_with_the_next_batch(make: Make) -> None:
    """Nothing is lost by it, whoever reads."""
    loader = make()
    one, *rest = [loader.next_batch(60).state for _ in range(8)]
    loader.load_state_dict(one)
    for number, expected in enumerate(rest):
        if number % 2:
            loader.pause()
        if number % 4 == 1:
            loader.resume()
        assert loader.next_batch(60).state == expected


def test_an_interrupt_anywhere_loses_no_row(make: Make) -> None:
    """The call after it goes on with what was not returned, of every node."""
    drawn = random.Random(8)
    with make() as plain:
        beginning = plain.state_dict()
        rows = [places(plain.next_batch(60)) for _ in range(120)]
    with make() as loader:
        loader.load_state_dict(beginning)
        following = 0
        for _ in range(40):
            interrupt, got = Interrupt(drawn.randrange(300)), []
            with contextlib.suppress(KeyboardInterrupt), interrupt:
                while not interrupt.came:
                    got.append(places(loader.next_batch(60)))
            got.append(places(loader.next_batch(60)))
            for one in got:
                # One that was interrupted on its way out of the call was given out all the same.
                following += one != rows[following]
                assert one == rows[following], interrupt.came
                following += 1


def test_every_batch_and_the_statistics_say_how_different_its_rows_are(make: Make) -> None:
    """What the columns say too: pixels are those of level 0, and nodes share no BigChunk."""
    loader = make(num_bigchunks=2, smallchunks_per_bigchunk=9)
    found = []
    for _ in range(MEASURED_EVERY + 1):
        batch = loader.next_batch(60)
        seen = batch.diversity
        nodes = batch["node"].tolist() if "node" in batch else [0] * 16
        of_bigchunk: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for node, ordinal, x, y in zip(
            nodes, *(batch[name].tolist() for name in ("bigchunk", "x", "y")), strict=True
        ):
            of_bigchunk.setdefault((node, ordinal), []).append((x, y))
        assert (seen.rows, seen.bigchunks) == (16, len(of_bigchunk))
        assert seen.patients == len(set(batch["patient"]))
        shown = [_shown_twice(corners) for corners in of_bigchunk.values()]
        assert seen.overlap == pytest.approx(sum(shown) / (16 * 64**2))
        found.append(seen)
    assert any(0 < seen.overlap < 1 for seen in found)

    told, measured = loader.stats(60), found[::MEASURED_EVERY]
    assert told.bigchunks_per_batch == fmean(seen.bigchunks for seen in measured)
    assert told.patients_per_batch == fmean(seen.patients for seen in measured)
    assert told.overlap == pytest.approx(fmean(seen.overlap for seen in measured))


def _shown_twice(corners: list[tuple[int, int]]) -> int:
    """Pixels of rows of 64 px with these corners that another of them shows too."""
    left, top = (min(values) for values in zip(*corners, strict=True))
    times = np.zeros((1024, 1024), np.int64)
    for x, y in corners:
        times[y - top : y - top + 64, x - left : x - left + 64] += 1
    return int(times[times > 1].sum())


def places(batch: Any) -> list[tuple[str, int, int]]:
    """Where the rows of a batch are from."""
    return list(zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


def test_a_grid_pass_begins_anew_however_the_last_iteration_ended(make: Make) -> None:
    """After a break, a look at the first batch, an exception, and its end: the same whole pass."""
    loader = make(**GRID)
    whole = [places(batch) for batch in loader]

    assert places(next(iter(loader))) == whole[0]
    for _ in range(2):
        for number, batch in enumerate(loader):
            if number == 3:
                break
            assert places(batch) == whole[number]
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError
    assert [places(batch) for batch in loader] == whole
    assert loader.state_dict() == loader.state_dict()
    assert len(loader) == len(whole)


def test_next_batch_goes_on_in_the_middle_and_an_iteration_does_not(make: Make) -> None:
    """`next_batch` has one position; `for` begins with the first batch again."""
    loader = make(**GRID)
    first, second = places(loader.next_batch(60)), places(loader.next_batch(60))

    assert first != second
    assert places(next(iter(loader))) == first
    assert places(loader.next_batch(60)) == second


def test_a_pass_goes_on_in_the_middle_once_from_a_state(make: Make) -> None:
    """The first iteration after a state was loaded is the rest of the pass, the next is whole."""
    loader = make(**GRID)
    whole = [places(batch) for batch in loader]
    iterator = iter(loader)
    states = [next(iterator).state for _ in range(5)]
    for taken, state in ((5, states[4]), (1, states[0])):
        loader.load_state_dict(state)
        assert [places(batch) for batch in loader] == whole[taken:]
        assert [places(batch) for batch in loader] == whole


def test_a_state_of_the_end_of_a_pass_is_followed_by_the_next(make: Make) -> None:
    """No iteration is empty."""
    loader = make(**GRID)
    whole = list(loader)
    for state in (whole[-1].state, loader.state_dict()):
        loader.load_state_dict(state)
        assert [places(batch) for batch in loader] == [places(batch) for batch in whole]


def test_shuffled_passes_differ_and_set_epoch_chooses_one(make: Make) -> None:
    """Each has all positions; pass 3 is the same whenever it comes."""
    loader = make(**GRID, shuffle=True)
    first = [places(batch) for batch in loader]
    second = [places(batch) for batch in loader]
    loader.set_epoch(3)
    fourth = [places(batch) for batch in loader]

    passes = [sorted(row for batch in one for row in batch) for one in (first, second, fourth)]
    assert passes[0] == passes[1] == passes[2]
    if not isinstance(loader, MergedDL):
        assert len({str(one) for one in (first, second, fourth)}) > 1
    if not isinstance(loader, LightDL):
        loader.set_epoch(3)
        with pytest.raises(ConfigError, match="go there with load_state_dict"):
            next(iter(loader))
        loader.set_epoch(4)
    else:
        loader.set_epoch(3)
        assert [places(batch) for batch in loader] == fourth
    state = loader.state_dict()
    loader.set_epoch(4)
    fifth = [places(batch) for batch in loader]
    loader.load_state_dict(state)
    loader.set_epoch(4)
    assert [places(batch) for batch in loader] == fifth


def test_a_view_and_a_data_loader_are_the_loader(make: Make) -> None:
    """Twice the same pass, in batches as they are; what would bundle them is refused."""
    loader = make(**GRID)
    whole = [places(batch) for batch in loader]
    for dataset in (loader.dataset_view(), loader):
        data: Any = DataLoader(dataset, batch_size=None)  # type: ignore[arg-type]
        assert [places(batch) for batch in data] == whole
        assert len(data) == len(whole)
        with pytest.raises(ConfigError, match="batch_size=None"):
            next(iter(DataLoader(dataset)))  # type: ignore[arg-type]


def test_an_older_iterator_is_told_that_a_later_one_has_begun(make: Make) -> None:
    """Two iterations over one position would each get half of a pass."""
    loader = make(**GRID)
    older = iter(loader)
    next(older)
    newer = iter(loader)
    next(newer)

    with pytest.raises(Closed, match="second loader"):
        next(older)


def test_a_loader_knows_when_it_is_in_another_process(make: Make) -> None:
    """A forked child, a worker and a pickle get a sentence, and the loader is not disturbed."""
    loader = make()
    loader.next_batch(60)
    uses: tuple[Callable[[], object], ...] = (
        *(loader.next_batch, loader.stats, loader.state_dict),
        lambda: next(iter(loader)),
        lambda: loader.load_state_dict({}),
    )
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for use in uses:
                said = "it was let in"
                try:
                    use()
                except BaseException as error:
                    said = "forked" if "forked" in str(error) else repr(error)
                os.write(write, f"{said} ".encode())
            loader.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read() == "forked " * 5
    with pytest.raises(ConfigError, match="num_workers=0"):
        pickle.dumps(loader)
    loader.next_batch(60)


def test_a_batch_survives_what_frameworks_do_to_it(make: Make) -> None:
    """Number, patients and state stay with columns that are put into a batch anew."""
    batch = make().next_batch(60)
    again = type(batch)({name: batch[name] for name in batch})

    assert (again.number, again.patients, again.state) == (
        batch.number,
        batch.patients,
        batch.state,
    )
    assert again.to("cpu").state == batch.state
    kept = pickle.loads(pickle.dumps(batch))
    assert kept.state == batch.state
    assert torch.equal(kept["image"], batch["image"])


AT_ONCE_S = 0.05


def times_of(ask: Callable[[], object], count: int = 15) -> float:
    """Seconds that a call takes, the third fastest of several.

    Others on this machine may keep most of them from the processor for longer; what waits for
    something would do so each time.
    """
    taken = []
    for _ in range(count):
        began = time.monotonic()
        ask()
        taken.append(time.monotonic() - began)
    return sorted(taken)[2]


@contextmanager
def stopped(make: Make) -> Iterator[None]:
    """Nothing comes any more: services are told to pause, coordinators stand still."""
    for address in make.addresses:
        # What was sent comes; then who asks for more waits for ever.
        operate(address, "pause")
    programs = our_processes("coordinator")
    for program in programs:
        program.suspend()
    try:
        yield
    finally:
        for program in programs:
            with contextlib.suppress(psutil.NoSuchProcess):
                program.resume()


def test_everything_else_answers_at_once_while_a_thread_waits(make: Make) -> None:
    """stats and state_dict take less than 50 ms, though the engine itself answers nothing."""
    loader = make()
    for _ in range(3):
        batch = loader.next_batch(60)
    assert loader.stats(60).batches >= 3
    told: list[BaseException] = []
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        try:
            while True:
                loader.next_batch()
        except (Closed, EndOfStream) as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    with stopped(make):
        thread.start()
        waits.wait()
        assert times_of(loader.stats) < AT_ONCE_S
        assert times_of(loader.state_dict) < AT_ONCE_S
        seen = loader.stats()
        assert seen.batches >= 3
        assert 0 < seen.age_s < 60
        assert loader.state_dict().keys() == batch.state.keys()
    loader.close()
    thread.join(100)
    assert not thread.is_alive()
    assert isinstance(told[0], Closed)


def test_a_loader_is_closed_at_once_and_who_waits_for_a_batch_is_told(make: Make) -> None:
    """Who waits in less than 50 ms, the best of three; and nothing runs into a deadline.

    With the loader its processes end, which on a busy machine takes longer than 50 ms.
    """
    taken: list[float] = []
    closed: list[float] = []
    for _ in range(3):
        loader = make()
        for address in make.addresses:
            operate(address, "pause")
        told: list[float] = []
        waits = threading.Event()

        def wait(
            loader: Loader = loader, told: list[float] = told, waits: threading.Event = waits
        ) -> None:
            waits.set()
            with contextlib.suppress(Closed):
                while True:
                    loader.next_batch()
            told.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        waits.wait()
        began = time.monotonic()
        loader.close()
        closed.append(time.monotonic() - began)
        thread.join(100)
        taken.append(told[0] - began)
    assert min(taken) < AT_ONCE_S, taken
    assert min(closed) < 10 * AT_ONCE_S, closed


def test_a_signal_handler_may_ask_for_the_state_and_close(make: Make) -> None:
    """In the middle of a wait for a batch, in the thread that waits."""
    loader = make()
    batch = loader.next_batch(60)
    seen: list[tuple[dict[str, Any], float]] = []

    def handler(number: int, frame: object) -> None:
        if len(seen) == 20:
            loader.close()
        else:
            began = time.monotonic()
            loader.stats()
            seen.append((loader.state_dict(), time.monotonic() - began))
            # Not before: on a busy machine one would come in the middle of the other for ever.
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Closed):
            while True:
                batch = loader.next_batch(60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 20
    assert sorted(seconds for _, seconds in seen)[3] < AT_ONCE_S
    assert batch.state in [state for state, _ in seen] or loader.state_dict() == batch.state


def test_what_would_go_on_raises_closed_and_the_rest_answers(make: Make) -> None:
    """One sentence for all loaders; where it stood, and what its columns mean, is still known."""
    loader = make({"batches": 5})
    batch = loader.next_batch(60)
    iterator = iter(loader)
    slides, patients = loader.tables["slide"], loader.tables["patient"]
    loader.close()
    goes_on: dict[str, Callable[[], object]] = {
        "get": loader.get,
        "next_batch": lambda: loader.next_batch(1),
        "next": lambda: next(loader),
        "iter": lambda: iter(loader),
        "next of an iterator": lambda: next(iterator),
        "dataset_view": loader.dataset_view,
        "load_state_dict": lambda: loader.load_state_dict(batch.state),
        "stats": loader.stats,
        "start": loader.start,
        "pause": loader.pause,
        "resume": loader.resume,
        "set_epoch": lambda: loader.set_epoch(1),
        "with": loader.__enter__,
    }
    said = {}
    for name, ask in goes_on.items():
        with pytest.raises(Closed) as error:
            ask()
        said[name] = str(error.value)
    assert set(said.values()) == {
        "the loader was closed; to go on, make another and load the state of this one"
    }, said
    assert loader.state_dict() == batch.state
    assert (loader.tables["slide"], loader.tables["patient"]) == (slides, patients)
    assert (len(loader), loader.length, loader.pass_number, loader.is_finite) == (5, 5, 0, False)
    loader.close()
    another = make()
    another.load_state_dict(loader.state_dict())
    another.next_batch(60)


def through_torch(state: dict[str, Any]) -> Any:
    """A checkpoint, read as whoever trusts nobody reads it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_is_plain_data_with_the_same_head(make: Make) -> None:
    """Version, kind, epoch and its batches, in every loader; json, msgpack and torch.save hold it.

    A state of another version, or of another kind of loader, is refused and changes nothing.
    """
    loader = make({"batches": 5})
    for _ in range(3):
        batch = loader.next_batch(60)
    state = loader.state_dict()
    assert state == batch.state
    assert list(state)[:4] == ["version", "kind", "epoch", "epoch_batches"]
    assert (state["version"], state["kind"]) == (STATE_VERSION, make.kind)
    assert (state["epoch"], state["epoch_batches"]) == (0, 3)
    expected = places(loader.next_batch(60))
    other = next(kind for kind in LOADERS if kind != make.kind)
    for wrong, words in (
        ({**state, "version": 99}, "has version 99, .* reads version"),
        ({**state, "kind": other}, f"of kind '{other}', .* this loader is of kind '{make.kind}'"),
        ({"epoch": 3}, "not a state of a chunkdl stream"),
    ):
        with pytest.raises(StateError, match=words):
            loader.load_state_dict(wrong)
    assert loader.state_dict()["epoch_batches"] == 4
    for through in (
        lambda one: json.loads(json.dumps(one)),
        lambda one: msgpack.unpackb(msgpack.packb(one)),
        through_torch,
    ):
        assert through(state) == state
        loader.load_state_dict(through(state))
        assert loader.state_dict() == state
        assert places(loader.next_batch(60)) == expected


def test_a_state_of_a_pass_says_which(make: Make) -> None:
    """The number of the pass, from 0; epochs that end by themselves have no count of batches."""
    loader = make(**GRID)
    for epoch in range(2):
        for batch in loader:
            assert (batch.state["epoch"], batch.state["epoch_batches"]) == (epoch, None)


def test_numpy_arrays_hold_what_tensors_hold(make: Make) -> None:
    """`arrays="numpy"`: images (B, H, W, 3), every number column an array."""
    first = make()
    tensors = first.next_batch(60)
    first.close()
    loader = make({"arrays": "numpy"})
    loader.load_state_dict(tensors.state)
    arrays = loader.next_batch(60)

    assert type(arrays["image"]).__module__ == type(arrays["x"]).__module__ == "numpy"
    assert arrays["image"].shape == (16, 64, 64, 3)
    assert {type(value).__module__ for value in arrays.values()} == {"numpy", "builtins"}
    assert torch.utils.dlpack.from_dlpack(arrays["x"].copy()).shape == (16,)


def test_epochs_of_an_endless_stream_have_their_length_whatever_ended_the_last(make: Make) -> None:
    """`batches=5`: five batches after a break too, each later than all before it."""
    loader = make({"batches": 5})
    assert len(loader) == 5
    epochs: list[list[Any]] = []
    for epoch in range(3):
        epochs.append([])
        for batch in loader:
            epochs[-1].append(batch)
            if epoch == 0 and len(epochs[-1]) == 2:
                break
    assert [len(epoch) for epoch in epochs] == [2, 5, 5]
    rows = [str(places(batch)) for epoch in epochs for batch in epoch]
    assert len(set(rows)) == 12

    loader.load_state_dict(epochs[1][-1].state)
    assert [str(places(batch)) for batch in loader] == rows[7:]
    loader.load_state_dict(epochs[1][2].state)
    assert [str(places(batch)) for batch in loader] == rows[5:7]
    assert [str(places(batch)) for batch in loader] == rows[7:]


def test_an_endless_stream_goes_on(make: Make) -> None:
    """Looking at a batch by an iterator, or breaking off, loses and repeats nothing."""
    loader = make()
    seen = [places(next(iter(loader)))]
    for batch in loader:
        seen.append(places(batch))
        if len(seen) == 4:
            break
    seen.append(places(loader.next_batch(60)))
    with pytest.raises(TypeError, match="endless"):
        len(loader)
    loader.close()
    again = make()
    again.load_state_dict(batch.state)

    assert places(again.next_batch(60)) == seen[-1]
    assert len({str(one) for one in seen}) == 5


def test_a_state_of_the_end_is_over_for_next_batch_and_the_next_pass_for_an_iteration(
    make: Make,
) -> None:
    """`next_batch` says that nothing is left; the `for` behind it is a whole pass."""
    loader = make(**GRID)
    whole = [places(batch) for batch in loader]
    loader.load_state_dict(loader.state_dict())
    with pytest.raises(EndOfStream):
        loader.next_batch(60)
    assert [places(batch) for batch in loader] == whole


def test_an_iteration_behind_next_batch_is_the_rest_of_a_pass_that_was_resumed(make: Make) -> None:
    """What `next_batch` took of it does not come again, and nothing is left out."""
    loader = make(**GRID)
    iterator = iter(loader)
    state = [next(iterator) for _ in range(3)][-1].state
    whole = [places(batch) for batch in loader]
    loader.load_state_dict(state)
    assert places(loader.next_batch(60)) == whole[3]
    assert [places(batch) for batch in loader] == whole[4:]
    assert [places(batch) for batch in loader] == whole


def test_a_pause_while_a_batch_is_waited_for_is_over_at_once(make: Make) -> None:
    """Whoever waits asks for a batch, and gets it without a word of `resume`."""
    loader = make()
    loader.next_batch(60)
    over, paused = threading.Event(), threading.Event()
    seen: list[int] = []

    def take() -> None:
        while not over.is_set():
            seen.append(loader.next_batch(60).number)
            if len(seen) >= 40 and paused.is_set():
                over.set()

    thread = threading.Thread(target=take)
    thread.start()
    # An engine of its own ends with each, and is started again.
    for _ in range(30 if make.addresses else 6):
        loader.pause()
    paused.set()
    thread.join(100)
    assert not thread.is_alive()
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_epochs_of_a_length_are_refused_for_passes(make: Make) -> None:
    """A pass has its own end, however many services there are."""
    with pytest.raises(ConfigError, match="a pass has its own end"):
        make({"batches": 2}, **GRID)


def test_the_share_of_the_wait_is_a_share_whatever_engine_there_was(make: Make) -> None:
    """Also where an iteration was broken off, or the loader was paused."""
    loader = make(**GRID)
    for _ in range(3):
        for _batch in loader:
            break
        loader.next_batch(60)
        assert 0 <= loader.stats(60).wait_share <= 1
        loader.pause()


def test_a_loader_that_cannot_start_leaves_nothing(make: Make) -> None:
    """An interrupt in `with` closes it; there is no other who would."""
    loader = make()

    def interrupted() -> None:
        raise KeyboardInterrupt

    loader._start = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), loader:
        pytest.fail("it was entered")
    with pytest.raises(Closed):
        loader.next_batch(1)

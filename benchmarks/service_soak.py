"""Does a service stand its consumers? ``python -m benchmarks.service_soak --minutes 30``.

Three ranks of a shared stream and three members of a broadcast, each a process of its own, are
killed, frozen, ended and started again at random; they write into their batches and fork children
that live on. The engine of the service is killed and replaced, and everything, the service with its
consumers, is stopped for longer than anybody may be silent. All the while strangers say anything to
a tcp address with keys and, where this is root, as another user to every socket. Afterwards every
batch that anybody got
is compared with those of `LightDL`: none may differ or be missing, and one may have come twice only
to the successor of a rank that was killed with it in hand. Memory and descriptors of the server may
not grow. Prints one line at the end, and what is wrong, if anything is.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
import psutil

from chunkdl import Dataset, LightDL, connect
from chunkdl.consumers.batches.batch import Batch
from chunkdl.errors import ServiceRefused
from chunkdl.service.configure import configure_service
from chunkdl.service.keys import Keys, create_keys, load_server_keys
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.stranger_program import NOBODY
from tests.service.strangers import listening, strangers, told

RANKS, MEMBERS, ROWS, CREDIT = 3, 3, 16, 4
SHARD, BROADCAST = "train", "trials"
SILENT_S, GRACE_S = 1.0, 4.0
GROWTH_MIB, MORE_DESCRIPTORS = 16.0, 8
STOP_S = 1.2 * (SILENT_S + GRACE_S)
WHOLE_EVERY_S = 12.0
"""Between two acts that strike all: the engine is killed, or everything is stopped, in turns."""
FORK_EVERY, FORK_LIVES_S = 40, 3.0
START_S = 120.0
STRANGERS_EVERY_S, STRANGERS_SAY = 5.0, 100
"""How often strangers come, and how much they say to each socket."""
PACE_S = 0.01
"""Between the batches of a consumer: what they do beside, and what keeps their files small."""


@dataclass(slots=True)
class Place:
    """A consumer that is there or not, and the files of all that were.

    Attributes:
        group, rank: which.
        process: that is there now.
        files: what each of them got.
        killed: whether each of them was killed, or frozen until it counted as dead.
        thaw_s: when the one that is frozen goes on, seconds.
    """

    group: str
    rank: int
    process: subprocess.Popen[bytes] | None = None
    files: list[Path] = field(default_factory=list)
    killed: list[bool] = field(default_factory=list)
    thaw_s: float | None = None


def digest(batch: Batch) -> str:
    """Of the pixels of a batch and where they are from."""
    facts = np.stack([batch[name].numpy() for name in ("x", "y", "bigchunk", "call")])
    pixels = np.ascontiguousarray(batch["image"].numpy())
    return hashlib.sha256(pixels.tobytes() + facts.tobytes()).hexdigest()[:16]


def consume(address: str, group: str, rank: int, file: Path) -> None:
    """Write down the number and the digest of each batch, until somebody says stop."""
    world = RANKS if group == SHARD else 1
    stop = file.with_suffix(".stop")
    while True:
        try:
            loader = connect(address, group, rank % world, world)
            break
        except ServiceRefused:
            # Its predecessor was killed or is frozen, and holds the place for a while yet.
            time.sleep(0.2)
            if stop.exists():
                return
    # Who waits for them is the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with loader, file.open("a") as out:
        while not stop.exists():
            batch = loader.next_batch(120)
            after = loader.state_dict()["position"]["left"]["tail"] // ROWS
            number = after - 1 if world == 1 else after - world + rank
            print(number, digest(batch), file=out, flush=True)
            # In hand until the next has come; what a training writes into it stays with it, whoever
            # has the batch beside it or after it.
            batch["image"].fill_(255)
            if number % FORK_EVERY == rank and os.fork() == 0:
                time.sleep(FORK_LIVES_S)
                os._exit(0)
            time.sleep(PACE_S)


class Soak:
    """A service, its consumers, and what happens to them.

    Args:
        folder: for slides and files.
        seed: of what happens.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = Random(seed)
        paths = []
        for number in range(2):
            paths.append(str(folder / f"{number}.tif"))
            write_coordinate_slide(paths[-1], 1500, 1248, slide_id=number, tile=128, levels=(1,))
        self._dataset = Dataset.from_slides(paths)
        self.loader = LightDL(
            self._dataset,
            batch_size=ROWS,
            smallchunk_size=64,
            bigchunk_size=512,
            num_bigchunks=4,
            reuse=4.0,
            tissue="none",
            num_loaders=1,
            num_collectors=1,
            memory_limit="256MiB",
        )
        self._address = f"ipc://@chunkdl-soak-{secrets.token_hex(6)}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._tcp = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        settings = ServiceSettings(
            binds=(self._address, self._tcp),
            keys=_keys(folder),
            groups=(GroupSpec(name=SHARD), GroupSpec(name=BROADCAST, mode="broadcast")),
            max_consumers=2 * (RANKS + MEMBERS),
            credit_batches=CREDIT,
            silent_s=SILENT_S,
            grace_s=GRACE_S,
        )
        arguments = replace(self.loader.arguments, batch_slots=0)
        self._service = ServiceProcess(configure_service(self._dataset, arguments, settings))
        shard = [Place(SHARD, rank) for rank in range(RANKS)]
        self.places = [*shard, *(Place(BROADCAST, rank) for rank in range(MEMBERS))]
        self._memory_mib: list[float] = []
        self._more_descriptors = 0
        self._strangers: subprocess.Popen[str] | None = None
        self._strangers_due = 0.0
        self.heard: dict[str, int] = {"messages": 0, "connected": 0, "answers": 0}
        """What strangers have said, on how many connections, and how often anybody answered."""
        self.acts = 0

    def run(self, seconds: float) -> None:
        """Everybody comes and goes once; things happen for so long; everybody ends in peace."""
        server = psutil.Process(self._service.process.pid)
        self._once()
        alone = _least_descriptors(server)
        begun = time.monotonic()
        strikes = itertools.cycle((_kill_engine, self._stop_all))
        due = WHOLE_EVERY_S
        while (passed := time.monotonic() - begun) < seconds:
            if passed > due:
                next(strikes)(server)
                due += WHOLE_EVERY_S
            self._have_strangers(server)
            self._act(self._random.choice(self.places))
            time.sleep(self._random.uniform(0.05, 0.5))
            self._memory_mib.append(server.memory_info().rss / 2**20)
        self._strangers_are_done()
        for place in self.places:
            self._thaw(place)
            self._end(place)
        self._more_descriptors = _least_descriptors(server) - alone
        self._service.close()

    def _have_strangers(self, server: psutil.Process) -> None:
        """Have them at the sockets that are there now; those of engines go with these."""
        there = self._strangers is not None and self._strangers.poll() is None
        if there or time.monotonic() < self._strangers_due:
            return
        self._strangers_are_done()
        names = [self._tcp]
        if os.getuid() == 0:
            pids = [server.pid, *(process.pid for process in server.children(recursive=True))]
            # An engine may end while it is looked at.
            with suppress(OSError):
                names += listening(pids)
        self._strangers = strangers(
            names, STRANGERS_SAY, NOBODY if os.getuid() == 0 else os.getuid()
        )
        self._strangers_due = time.monotonic() + STRANGERS_EVERY_S

    def _strangers_are_done(self) -> None:
        if self._strangers is not None:
            for name, counts in told(self._strangers).items():
                local = not name.startswith("tcp://")
                for what, count in counts.items():
                    # By tcp anybody is told that this is ZeroMQ.
                    self.heard[what] += count if local or what != "answers" else 0
            self._strangers = None

    def _once(self) -> None:
        """After this the engines of all groups are there."""
        for place in self.places:
            self._begin(place)
        give_up = time.monotonic() + START_S
        while not all(_lines(place.files[0]) for place in self.places):
            if time.monotonic() > give_up:
                raise TimeoutError(f"no batches for all within {START_S:.0f} s")
            time.sleep(0.05)
        for place in self.places:
            self._end(place)

    def _act(self, place: Place) -> None:
        self.acts += 1
        now = time.monotonic()
        if place.process is None or place.process.poll() is not None:
            self._note_end(place)
            self._begin(place)
        elif place.thaw_s is not None:
            if now >= place.thaw_s:
                self._thaw(place)
        else:
            match self._random.randrange(6):
                case 0:
                    place.process.kill()
                    place.process.wait()
                    place.killed[-1] = True
                case 1:
                    place.process.send_signal(signal.SIGSTOP)
                    frozen_s = self._random.uniform(0.1, 7.0)
                    place.thaw_s = now + frozen_s
                    # Given up by the service it is as good as dead; what it had comes again.
                    place.killed[-1] |= frozen_s > SILENT_S + GRACE_S - 2.0
                case 2:
                    self._end(place)
                case _:
                    pass

    def _stop_all(self, server: psutil.Process) -> None:
        """Suspend the service and its consumers, and wake them in any order."""
        there = [place.process for place in self.places if place.process is not None]
        stopped = [server, *server.children(recursive=True)]
        stopped += [psutil.Process(process.pid) for process in there if process.poll() is None]
        frozen = {place.process.pid for place in self.places if place.process and place.thaw_s}
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(STOP_S)
        self._random.shuffle(stopped)
        for process in stopped:
            if process.pid not in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _begin(self, place: Place) -> None:
        file = self._folder / f"{place.group}-{place.rank}-{len(place.files)}"
        file.touch()
        place.files.append(file)
        place.killed.append(False)
        command = [sys.executable, "-m", "benchmarks.service_soak", "--consume", self._address]
        command += [place.group, str(place.rank), str(file)]
        quiet = subprocess.DEVNULL
        place.process = subprocess.Popen(command, stderr=quiet, cwd=Path(__file__).parents[1])

    def _thaw(self, place: Place) -> None:
        if place.process is not None and place.thaw_s is not None:
            place.process.send_signal(signal.SIGCONT)
        place.thaw_s = None

    def _note_end(self, place: Place) -> None:
        """Of one that the service has given up, which ends with an error, as little is known."""
        if place.process is not None:
            place.killed[-1] |= place.process.returncode != 0

    def _end(self, place: Place) -> None:
        """Tell a consumer to leave, and kill it where it cannot."""
        if place.process is None or place.process.poll() is not None:
            self._note_end(place)
            return
        place.files[-1].with_suffix(".stop").touch()
        try:
            place.process.wait(10)
        except subprocess.TimeoutExpired:
            place.process.kill()
            place.process.wait()
        self._note_end(place)

    # ----------------------------------------------------------------- what came out

    def problems(self) -> list[str]:
        """What is wrong with what everybody got, and with the server."""
        return [*self._wrong_batches(), *self._growth(), *self._answered()]

    def _answered(self) -> list[str]:
        if not self.heard["messages"]:
            return ["no stranger has said anything"]
        answers = self.heard["answers"]
        return [f"strangers were answered {answers} times"] if answers else []

    def _growth(self) -> list[str]:
        third = max(1, len(self._memory_mib) // 3)
        first, last = self._memory_mib[:third], self._memory_mib[-third:]
        more = statistics.median(last) - statistics.median(first)
        found = []
        if more > GROWTH_MIB:
            found.append(f"the server has grown by {more:.1f} MiB")
        if self._more_descriptors > MORE_DESCRIPTORS:
            found.append(f"the server has {self._more_descriptors} descriptors more")
        return found

    def _wrong_batches(self) -> list[str]:
        lives = [(place, [_lines(file) for file in place.files]) for place in self.places]
        last = max((n for _, files in lives for lines in files for n, _ in lines), default=-1)
        with self.loader as loader:
            right = [digest(loader.next_batch(60)) for _ in range(last + 1)]
        found: list[str] = []
        for place, files in lives:
            who = f"{place.group} {place.rank}"
            for lines in files:
                found += [f"{who}: batch {n} differs" for n, d in lines if right[n] != d]
                step = RANKS if place.group == SHARD else 1
                numbers = [n for n, _ in lines]
                if numbers and numbers != list(range(numbers[0], numbers[-1] + 1, step)):
                    found.append(f"{who}: batches are missing among {numbers[0]}..{numbers[-1]}")
            if place.group == SHARD:
                found += _wrong_handovers(who, files, place.killed)
        return found


def _keys(folder: Path) -> Keys:
    """Of a service with one client, who never comes."""
    _, secret = create_keys("server", folder)
    (folder / "clients").mkdir()
    create_keys("nobody", folder / "clients")
    (folder / "clients" / "nobody.key_secret").unlink()
    return load_server_keys(secret, folder / "clients")


def _least_descriptors(server: psutil.Process) -> int:
    """What a process has open when the last of its consumers is gone; a little is patience."""
    seen: list[int] = []
    for _ in range(100):
        seen.append(server.num_fds())
        time.sleep(0.05)
    return min(seen)


def _kill_engine(server: psutil.Process) -> None:
    """Kill what makes the batches; the service starts another."""
    for process in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "chunkdl_workers.coordinator" in process.cmdline():
                process.kill()


def _wrong_handovers(
    who: str, files: Sequence[Sequence[tuple[int, str]]], killed: Sequence[bool]
) -> list[str]:
    """Where the successor of a rank did not go on as it should."""
    found, expected, may_repeat = [], None, False
    for lines, was_killed in zip(files, killed, strict=True):
        if lines:
            first = lines[0][0]
            least = first if expected is None else expected - RANKS * CREDIT * may_repeat
            if expected is not None and not least <= first <= expected:
                found.append(f"{who}: went on with batch {first} where {expected} was due")
            expected, may_repeat = lines[-1][0] + RANKS, False
        may_repeat = may_repeat or was_killed
    return found


def _lines(file: Path) -> list[tuple[int, str]]:
    """What a consumer wrote; its last line may have been cut off."""
    text = file.read_text()
    whole = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
    return [(int(number), found) for number, found in whole]


def main(arguments: Sequence[str] | None = None) -> None:
    """Soak, or be a consumer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--consume", nargs=4, metavar=("ADDRESS", "GROUP", "RANK", "FILE"))
    options = parser.parse_args(arguments)
    if options.consume:
        address, group, rank, file = options.consume
        consume(address, group, int(rank), Path(file))
        os._exit(0)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.seed)
        soak.run(options.minutes * 60)
        found = soak.problems()
        batches = sum(len(_lines(file)) for place in soak.places for file in place.files)
        lives = sum(len(place.files) for place in soak.places)
        print(
            f"{soak.acts} acts, {lives} consumers, {batches} batches, {soak.heard['messages']} "
            f"messages of strangers; {len(found)} problems"
        )
        if found:
            raise SystemExit("\n".join(found[:50]))


if __name__ == "__main__":
    main()

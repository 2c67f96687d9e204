"""Programs as PyDmed's tutorial and notebooks teach them run as they are, but for their imports.

Each is a script of its own without a ``__main__`` guard, or typed into ``python -`` as a notebook
would: nothing in it can be imported by a worker. It prints what it has seen as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chunkdl.slides.synthetic.writing import write_tissue_slide

TIMEOUT_S = 150

PRELUDE = """
import json, os, random, sys, time
from abc import abstractmethod
import numpy as np
import chunkdl.pydmed as pydmed
from chunkdl.pydmed.utils.data import *
import chunkdl.pydmed.lightdl
from chunkdl.pydmed.lightdl import *

rootdir = sys.argv[1] + "/"
list_relativedirs = sorted(name for name in os.listdir(rootdir) if not name.endswith(".md"))
list_patients = []
for fname in list_relativedirs:
    list_patients.append(Patient(
        int_uniqueid=list_relativedirs.index(fname),
        dict_records={
            "H&E": Record(rootdir, fname, {"resolution": "40x"}),
            "HER2-status": len(list_patients) % 2,
        },
    ))
dataset = pydmed.utils.data.Dataset("dataset of a program", list_patients)
const_global_info = {
    "num_bigchunkloaders": 2,
    "maxlength_queue_smallchunk": 10,
    "maxlength_queue_lightdl": 200,
    "interval_resched": 10,
    "core-assignment": {"lightdl": None, "smallchunkloaders": None, "bigchunkloaders": None},
}
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three H&E-like slides."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        size = 900 + 100 * number
        write_tissue_slide(folder / f"{number}.tif", size, 800, seed=number, levels=(1, 2))
    return folder


@pytest.fixture(scope="module")
def real_slides(slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to some real slides."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"):
        (folder / name).symlink_to(slides_folder / name)
    return folder


def run(program: str, slides: Path, workplace: Path, *, typed: bool = False) -> Any:
    """What the program has printed last.

    Args:
        program: behind the prelude.
        slides: folder of its slides.
        workplace: where it runs.
        typed: it is typed into an interpreter, else a file.
    """
    text = PRELUDE + program
    script = workplace / "program.py"
    script.write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "XDG_CACHE_HOME": str(workplace / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-" if typed else str(script), str(slides)],
        input=text if typed else None,
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- Training.

TRAINING = """
import openslide, torch

def random_foreground(osimage, w):
    "A place that is darker than most."
    W, H = osimage.dimensions
    level = osimage.level_count - 1
    scale = osimage.level_downsamples[level]
    last = osimage.read_region([0, 0], level, osimage.level_dimensions[level])
    small = np.array(last.convert("L"))[::10, ::10]
    i, j = random.choice(np.argwhere(small <= np.median(small)).tolist())
    x, y = int(j * 10 * scale) - w // 2, int(i * 10 * scale) - w // 2
    return min(max(0, x), W - w), min(max(0, y), H - w)

class WSIRandomBigchunkLoader(BigChunkLoader):
    @abstractmethod
    def extract_bigchunk(self, arg_msg):
        self.log("in time {} a BigChunk loaded.\\n".format(time.time()))
        list_bigchunks = []
        for idx_bigpatch in range(2):
            wsi = self.patient.dict_records["H&E"]
            osimage = openslide.OpenSlide(wsi.rootdir + wsi.relativedir)
            w = h = self.const_global_info["width_bigchunk"]
            x, y = random_foreground(osimage, w)
            pil_bigchunk = osimage.read_region([x, y], 0, [w, h])
            np_bigchunk = np.array(pil_bigchunk)[:, :, 0:3]
            list_bigchunks.append(BigChunk(
                data=np_bigchunk, dict_info_of_bigchunk={"x": x, "y": y}, patient=self.patient))
        return list_bigchunks

class WSIRandomSmallchunkCollector(SmallChunkCollector):
    def __init__(self, *args, **kwargs):
        self.width = kwargs["const_global_info"]["width_smallchunk"]
        super(WSIRandomSmallchunkCollector, self).__init__(*args, **kwargs)
        self.num_collected = 0

    @abstractmethod
    def extract_smallchunk(self, n, list_bigchunks, arg_msg):
        assert n == self.num_collected, "an object serves one load, and remembers"
        self.num_collected += 1
        bigchunk = random.choice(list_bigchunks)
        W, H = bigchunk.data.shape[1], bigchunk.data.shape[0]
        w = self.width
        x, y = np.random.randint(0, W - w), np.random.randint(0, H - w)
        return SmallChunk(
            data=bigchunk.data[y:y + w, x:x + w, :],
            dict_info_of_smallchunk={"x": x, "y": y},
            dict_info_of_bigchunk=bigchunk.dict_info_of_bigchunk,
            patient=bigchunk.patient)

def tfms(np_smallchunk):
    return torch.from_numpy(np_smallchunk / 255.0).permute(2, 0, 1).float()

const_global_info["maxlength_queue_smallchunk"] = 25
const_global_info["width_bigchunk"] = 300
const_global_info["width_smallchunk"] = 64
dataloader = LightDL(
    dataset=dataset,
    type_bigchunkloader=WSIRandomBigchunkLoader,
    type_smallchunkcollector=WSIRandomSmallchunkCollector,
    const_global_info=const_global_info,
    batch_size=10,
    tfms=tfms,
    fname_logfile="log.txt",
    flag_grabqueue_onunsched=False,
)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 5, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(4, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
images = {p: openslide.OpenSlide(p.dict_records["H&E"].path) for p in dataset.list_patients}
dataloader.start()
batchcount, same, patients = 0, 0, set()
while True:
    x, list_patients, list_smallchunks = dataloader.get()
    y = torch.from_numpy(np.array([p.dict_records["HER2-status"] for p in list_patients]))
    batchcount += 1
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    for image, patient, smallchunk in zip(x, list_patients, list_smallchunks):
        assert smallchunk.patient is patient
        big, small = smallchunk.dict_info_of_bigchunk, smallchunk.dict_info_of_smallchunk
        at = [big["x"] + small["x"], big["y"] + small["y"]]
        there = np.array(images[patient].read_region(at, 0, [64, 64]))[:, :, 0:3]
        same += int(torch.equal(image, tfms(there)))
        patients.add(patient.int_uniqueid)
    if batchcount == 15:
        dataloader.pause_loading()
        break
visualized = {}
dataloader.visualize(lambda patient, chunks: visualized.update({patient.int_uniqueid: len(chunks)}))
print(json.dumps({
    "shape": list(x.shape), "same": same, "patients": sorted(patients), "loss": loss.item(),
    "visualized": sum(visualized.values()),
    "log": open("log.txt").read().count("a BigChunk loaded."),
}))
"""


def test_training(slides: Path, tmp_path: Path) -> None:
    """Lists of regions read with OpenSlide in decorated hooks with names of their own: each row
    is the place of its patient's slide that its dicts say; hooks, log and settings work."""
    seen = run(TRAINING, slides, tmp_path)
    assert seen["shape"] == [10, 3, 64, 64]
    assert seen["same"] == seen["visualized"] == 150
    assert seen["patients"] == [0, 1, 2]
    assert seen["log"] >= 6


def test_training_on_real_slides(real_slides: Path, tmp_path: Path) -> None:
    """The same with slides of a scanner, typed in."""
    seen = run(TRAINING, real_slides, tmp_path, typed=True)
    assert seen["same"] == 150
    assert seen["patients"] == [0, 1]


# ---- Messages and checkpoints.

MESSAGES = """
class Loader(BigChunkLoader):
    @abstractmethod
    def extract_bigchunk(self, last_message_fromroot):
        checkpoint = self.get_checkpoint()
        idx_bigchunk = 0 if checkpoint == None else checkpoint["checkpoint_for_bigchunk"]
        return BigChunk(
            np.full((8, 8), idx_bigchunk), {"message": last_message_fromroot}, self.patient)

class Collector(SmallChunkCollector):
    @abstractmethod
    def extract_smallchunk(self, call_count, bigchunk, last_message_fromroot):
        if call_count == 0:
            old_checkpoint = self.get_checkpoint()
            new = 1 if old_checkpoint == None else old_checkpoint["checkpoint_for_bigchunk"] + 1
            self.set_checkpoint({"checkpoint_for_bigchunk": new})
        assert last_message_fromroot == bigchunk.dict_info_of_bigchunk["message"]
        return SmallChunk(bigchunk.data, {}, bigchunk.dict_info_of_bigchunk, self.patient)

dataset = Dataset("many", [Patient(number, {}) for number in range(8)])
dataloader = LightDL(dataset, Loader, Collector, const_global_info, 20, tfms=None)
dataloader.start()
loads = {patient.int_uniqueid: {} for patient in dataset}
for batch in range(60):
    if batch in (0, 30):
        for patient in dataset:
            dataloader.send_message(patient, {"at": batch, "to": patient.int_uniqueid})
    x, list_patients, list_smallchunks = dataloader.get()
    for image, patient, smallchunk in zip(x, list_patients, list_smallchunks):
        message = smallchunk.dict_info_of_bigchunk["message"]
        loads[patient.int_uniqueid][int(image[0, 0])] = message
dataloader.pause_loading()
print(json.dumps({patient: [sorted(of), list(of.values())] for patient, of in loads.items()}))
"""


def test_messages_and_checkpoints(slides: Path, tmp_path: Path) -> None:
    """Typed in: every load sees the checkpoint of the one before, none of any other patient; each
    message comes to one load of its patient, also to those that are first loaded late."""
    for patient, (numbers, messages) in run(MESSAGES, slides, tmp_path, typed=True).items():
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 5
        came = [message for message in messages if message is not None]
        assert came == [{"at": at, "to": int(patient)} for at in (0, 30)]


# ---- Anything but images.

OBJECTS = """
class Sentence:
    def __init__(self, words):
        self.words = words

class Loader(BigChunkLoader):
    def extract_bigchunk(self, msg):
        name = self.patient.dict_records["name"]
        return {"text": [name, "is", "well"], "numbers": np.arange(5)}

class Collector(SmallChunkCollector):
    def extract_smallchunk(self, n, text, msg):
        words = text["text"] * (1 + n % 3)
        return SmallChunk(Sentence(words), {"sum": text["numbers"][:n].sum()}, {}, self.patient)

def collate(list_smallchunks, tfms):
    return {patient.dict_records["name"]: sorted(tfms(chunk.data) for chunk in list_smallchunks
            if chunk.patient is patient) for patient in dataset}

dataset = Dataset("people", [Patient(5, {"name": "Ada"}), Patient(3, {"name": "Bob"})])
const_global_info["maxlength_queue_smallchunk"] = np.inf
dataloader = LightDL(dataset, Loader, Collector, const_global_info, 6,
                     lambda sentence: " ".join(sentence.words), collate_func=collate)
dataloader.start()
batch = dataloader.get()
dataloader.pause_loading()
print(json.dumps(batch))
"""


def test_objects_with_a_collate_function(slides: Path, tmp_path: Path) -> None:
    """Objects of a class of the script arrive as such; the collate function gets `tfms`."""
    batch = run(OBJECTS, slides, tmp_path)
    assert set(batch) == {"Ada", "Bob"}
    sentences = {sentence for of_one in batch.values() for sentence in of_one}
    assert "Ada is well Ada is well" in sentences
    assert sum(map(len, batch.values())) == 6


# ---- Schedules.

IN_TURN = """
class Loader(BigChunkLoader):
    def extract_bigchunk(self, msg):
        return np.zeros(1)

class Collector(SmallChunkCollector):
    def extract_smallchunk(self, n, bigchunk, msg):
        if n == self.const_global_info["quota"] - 1:
            self.set_status("had enough")
        return SmallChunk(bigchunk, {"n": n}, {}, self.patient)

class DLWithInTurnSched(LightDL):
    def __init__(self, most, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.most, self.idx = most, 0

    def initial_schedule(self):
        return self.dataset.list_patients[:2]

    def schedule(self):
        statuses = {p.get_status() for p in self.active_subprocesses}
        assert statuses <= {"had enough", "TODO:packagename reserverd: empty cache"}
        if all(self.get_schedcount_of(p) >= self.most for p in self.dataset.list_patients):
            return PYDMEDRESERVED_HALTDL
        list_waiting = self.get_list_waitingpatients()
        if not list_waiting:
            return None, None
        return random.choice(self.get_list_loadedpatients()), min(
            list_waiting, key=lambda p: (self.get_schedcount_of(p), p))

dataset = Dataset("seven", [Patient(number, {}) for number in range(7)])
const_global_info["quota"] = const_global_info["maxlength_queue_smallchunk"] = 12
dataloader = DLWithInTurnSched(
    2, dataset=dataset, type_bigchunkloader=Loader, type_smallchunkcollector=Collector,
    const_global_info=const_global_info, batch_size=10, tfms=None)
dataloader.start()
order, counts, sizes = [], {}, []
while True:
    returned = dataloader.get()
    if returned == PYDMEDRESERVED_DLRETURNEDLASTINSTANCE:
        break
    sizes.append(len(returned[1]))
    for chunk in returned[2]:
        if chunk.dict_info_of_smallchunk["n"] == 0:
            order.append(chunk.patient.int_uniqueid)
        number = chunk.patient.int_uniqueid
        counts[number] = counts.get(number, 0) + 1
assert dataloader.get() == "PYDMEDRESERVED_DL_RETURNED_LAST_INSTANCE"
assert not dataloader.is_dl_running() and dataloader.queue_lightdl.qsize() == 0
print(json.dumps([order, counts, sizes]))
"""


def test_a_schedule_in_turn_with_a_quota_and_a_halt(slides: Path, tmp_path: Path) -> None:
    """The patients come in the order that the program's own schedule gives; after its halt every
    SmallChunk of the loaded ones is delivered, in full batches. The program ends nothing itself."""
    order, counts, sizes = run(IN_TURN, slides, tmp_path)
    # The first two take turns, which of them begins is left to the plan.
    assert [*sorted(order[:2]), *order[2:]] == [*range(7), *range(7)]
    # The first BigChunk of one place gives half, so that they are not all used up at a time.
    assert counts == {"0": 18, **{str(number): 24 for number in range(1, 7)}}
    assert sizes == [10] * 16 + [2]


# ---- Extensions and stream collectors.

HEATMAP = """
import torch
import chunkdl.pydmed.extensions.wsi
from chunkdl.pydmed.streamcollector import *

kernel_size = 200

def func_patient_to_fnameimage(patient_input):
    record = patient_input.dict_records["H&E"]
    return os.path.join(record.rootdir, record.relativedir)

dl_forheatmap = pydmed.extensions.wsi.SlidingWindowDL(
    intorfunc_opslevel=lambda patient: 1 if patient.int_uniqueid == 0 else 0,
    kernel_size=kernel_size,
    func_patient_to_fnameimage=func_patient_to_fnameimage,
    stride=kernel_size,
    mininterval_loadnewbigchunk=15,
    dataset=dataset,
    type_bigchunkloader=pydmed.extensions.wsi.SlidingWindowBigChunkLoader,
    type_smallchunkcollector=pydmed.extensions.wsi.SlidingWindowSmallChunkCollector,
    const_global_info={**const_global_info, "maxlength_queue_smallchunk": np.inf},
    batch_size=5,
    tfms_onsmallchunkcollection=lambda tile: tile.astype(np.float32) / 255,
    tfms=lambda tile: torch.from_numpy(tile).permute(2, 0, 1),
    flag_grabqueue_onunsched=True,
)

class HeatmapStreamCollector(StreamCollector):
    def __init__(self, module_pipeline, *args, **kwargs):
        self.module_pipeline = module_pipeline
        super(HeatmapStreamCollector, self).__init__(*args, **kwargs)

    @abstractmethod
    def process_pieceofstream(self, retval_collatefunc):
        x, list_patients, list_smallchunks = retval_collatefunc
        with torch.no_grad():
            netout = self.module_pipeline(x)
        return [ProcessedPiece(
            data=pydmed.extensions.wsi.Tensor3DtoPdmcsvrow(netout[n], list_smallchunks[n]),
            source_smallchunk=list_smallchunks[n]) for n in range(netout.shape[0])]

    @abstractmethod
    def get_flag_finishcollecting(self):
        return self.lightdl.is_dl_running() == False and self.lightdl.queue_lightdl.qsize() == 0

os.mkdir("Heatmaps")
collector = HeatmapStreamCollector(
    module_pipeline=torch.nn.AvgPool2d(kernel_size // 4), lightdl=dl_forheatmap,
    str_collectortype="stream_to_file", flag_visualizestats=False,
    kwargs_streamwriter={
        "rootpath": "Heatmaps/", "fname_tosave": None, "waiting_time_before_flush": 3})
collector.start_collecting()
errors = {}
for patient in dataset:
    heatmap = pydmed.extensions.wsi.pdmcsvtoarray(
        f"Heatmaps/patient_{patient.int_uniqueid}.csv",
        pydmed.extensions.wsi.DefaultWSIxyWHvaltoRasterPoints().func_WSIxyWHval_to_rasterpoints)
    from chunkdl import open_slide
    slide = open_slide(func_patient_to_fnameimage(patient))
    level = 1 if patient.int_uniqueid == 0 else 0
    size = slide.info.levels[level]
    pixels = np.empty((size.height, size.width, 3), np.uint8)
    slide.read_into(pixels, level, 0, 0)
    whole = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    rows, columns = size.height // 50, size.width // 50
    # The last strip and column lie where the grid does not; only what is on the grid is compared.
    rows, columns = rows // 4 * 4 - 4, columns // 4 * 4 - 4
    expected = torch.nn.functional.avg_pool2d(whole, 50).permute(1, 2, 0).numpy()
    difference = np.abs(heatmap[:rows, :columns] - expected[:rows, :columns])
    errors[patient.int_uniqueid] = [float(difference.max()), rows * columns]
print(json.dumps(errors))
"""


def test_a_heat_map(slides: Path, tmp_path: Path) -> None:
    """What the network says about each tile of each slide lies in the heat map where the tile is;
    the level is a function of the patient. Typed in."""
    errors = run(HEATMAP, slides, tmp_path, typed=True)
    assert set(errors) == {"0", "1", "2"}
    assert all(worst < 1e-5 and cells > 0 for worst, cells in errors.values())


def test_a_heat_map_of_real_slides(real_slides: Path, tmp_path: Path) -> None:
    """The same with slides of a scanner."""
    program = HEATMAP.replace("1 if patient.int_uniqueid == 0", "1 if patient.int_uniqueid == 1")
    errors = run(program, real_slides, tmp_path)
    assert all(worst < 1e-5 and cells > 100 for worst, cells in errors.values())


COLLECTING = """
import chunkdl.pydmed.extensions.dl
from chunkdl.pydmed.streamcollector import *

class Loader(BigChunkLoader):
    def extract_bigchunk(self, msg):
        return BigChunk(np.arange(10), {}, self.patient)

class Collector(SmallChunkCollector):
    def extract_smallchunk(self, n, bigchunk, msg):
        return SmallChunk(bigchunk.data[n : n + 1], {"n": n}, {}, self.patient)

dataset = Dataset("nine", [Patient(number, {"label": int(number > 6)}) for number in range(9)])

class Until(StreamCollector):
    seconds_between_finishchecks = 0

    def process_pieceofstream(self, retval):
        x, list_patients, list_smallchunks = retval
        self.seen = getattr(self, "seen", 0) + len(list_patients)
        return [ProcessedPiece(data=int(x[n]), source_smallchunk=chunk)
                for n, chunk in enumerate(list_smallchunks)]

    def get_flag_finishcollecting(self):
        return self.seen >= 400

    def accum_statistics(self, prev, new, patient):
        return (prev or 0) + 1

def balanced():
    return pydmed.extensions.dl.LabelBalancedDL(
        lambda patient: patient.dict_records["label"],
        dataset, Loader, Collector, const_global_info, 20, tfms=None)

everything = Until(balanced(), "saveall")
everything.start_collecting()
pieces = {p.int_uniqueid: len(stats) for p, stats in everything.get_finalstats().items()}
counted = Until(balanced(), "accum", flag_visualizestats=True)
counted.start_collecting()
sums = {p.int_uniqueid: value for p, value in counted.get_finalstats().items()}
print(json.dumps([pieces, sums]))
"""


def test_stream_collectors_over_balanced_labels(slides: Path, tmp_path: Path) -> None:
    """Typed in: two loaders one after the other in one program give the same stream; it is balanced
    though one label has two patients of nine, and the collectors end it when they have enough."""
    pieces, sums = run(COLLECTING, slides, tmp_path, typed=True)
    assert {key: value for key, value in sums.items() if value} == {
        key: value for key, value in pieces.items() if value
    }
    assert sum(pieces.values()) == 400
    assert 150 <= pieces["7"] + pieces["8"] <= 250

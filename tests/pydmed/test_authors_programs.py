"""Programs of the kind that PyDmed's author wrote, with nothing but star imports: they run as they
are, in a notebook's way and with their classes in a module of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chunkdl.slides.synthetic.writing import write_tissue_slide

CLASSES = """
from chunkdl.pydmed.utils.data import *
from chunkdl.pydmed.lightdl import *
from chunkdl.pydmed.stat import *
import copy

class RegionLoader(BigChunkLoader):
    @abstractmethod
    def extract_bigchunk(self, arg_msg):
        mask = self.patient.dict_records["precomputed_otsu"]
        scale = self.patient.dict_records["scale_thumbnail"]
        rows, columns = np.where(mask == 1.0)
        wsi = self.patient.dict_records["H&E"]
        osimage = openslide.OpenSlide(os.path.join(wsi.rootdir, wsi.relativedir))
        w = self.const_global_info["width_bigchunk"]
        list_bigchunks = []
        for idx in random.choices(range(len(rows)), k=2):
            x = int(min(max(0, columns[idx] / scale - w / 2), osimage.dimensions[0] - w))
            y = int(min(max(0, rows[idx] / scale - w / 2), osimage.dimensions[1] - w))
            patient_without_mask = copy.deepcopy(self.patient)
            for k in patient_without_mask.dict_records.keys():
                if k.startswith("precomputed"):
                    patient_without_mask.dict_records[k] = None
            list_bigchunks.append(BigChunk(
                data=np.array(osimage.read_region([x, y], 0, [w, w]))[:, :, 0:3],
                dict_info_of_bigchunk={"x": x, "y": y}, patient=patient_without_mask))
        # So that it is not sent along; the next load of the patient needs it again.
        self.patient.dict_records.pop("precomputed_otsu")
        return list_bigchunks

class PatchCollector(SmallChunkCollector):
    def __init__(self, *args, **kwargs):
        self.mode_trainortest = kwargs["const_global_info"]["mode_trainortest"]
        super(PatchCollector, self).__init__(*args, **kwargs)

    @abstractmethod
    def extract_smallchunk(self, call_count, list_bigchunks, last_message_fromroot):
        if self.mode_trainortest == "test":
            if call_count > 10:
                return None
        bigchunk = random.choice(list_bigchunks)
        x, y = np.random.randint(0, 200, size=2)
        self.log("patch at {} {}\\n".format(x, y))
        return SmallChunk(
            data=bigchunk.data[y:y+64, x:x+64, :], dict_info_of_smallchunk={"x": x, "y": y},
            dict_info_of_bigchunk=bigchunk.dict_info_of_bigchunk, patient=bigchunk.patient)

class DLWithInTurnSched(LightDL):
    def __init__(self, *args, **kwargs):
        self.list_active_subclass = []
        self.list_waiting_subclass = []
        super(DLWithInTurnSched, self).__init__(*args, **kwargs)

    def schedule(self):
        if self.list_active_subclass == []:
            self.list_active_subclass = self.get_list_loadedpatients()
            self.list_waiting_subclass = self.get_list_waitingpatients()
        patient_toremove = self.list_active_subclass[-1]
        patient_toload = self.list_waiting_subclass[0]
        self.list_active_subclass = [patient_toload] + self.list_active_subclass[0:-1]
        self.list_waiting_subclass = self.list_waiting_subclass[1::] + [patient_toremove]
        return patient_toremove, patient_toload

class MeanCollector(StatCollector):
    seconds_between_finishchecks = 0.1

    @abstractmethod
    def get_statistics(self, retval_collatefunc):
        x, list_patients, list_smallchunks = retval_collatefunc
        return [Statistic(stat=x[n].mean((1, 2)).numpy(), source_smallchunk=list_smallchunks[n])
                for n in range(x.shape[0])]

    @abstractmethod
    def accum_statistics(self, prev_accum, new_stat, patient):
        if prev_accum == None:
            return {"count": 1, "sum": new_stat.stat}
        if prev_accum["count"] == 12:
            return prev_accum
        return {"count": prev_accum["count"] + 1, "sum": prev_accum["sum"] + new_stat.stat}

    @abstractmethod
    def get_flag_finishcollecting(self):
        counts = [0 if accum == None else accum["count"]
                  for accum in self.dict_patient_to_accumstat.values()]
        return min(counts) == 12
"""

PROGRAM = """
import chunkdl.pydmed as pydmed
import chunkdl.pydmed.extensions.dl
import json

rootdir = sys.argv[1]
list_patients = []
for number, fname in enumerate(sorted(os.listdir(rootdir)) * 3):
    list_patients.append(pydmed.utils.data.Patient(
        int_uniqueid=number * 1000,
        dict_records={
            "H&E": pydmed.utils.data.Record(rootdir, fname, {"type": "H&E"}),
            "label": int(number >= 7), "precomputed_otsu": np.ones((40, 40)),
            "scale_thumbnail": 0.05}))
dataset = pydmed.utils.data.Dataset("of the author", list_patients)
tfms = lambda data: torch.from_numpy(np.ascontiguousarray(data)).permute(2, 0, 1) / 255.0

def settings(mode):
    return {
        "mode_trainortest": mode, "width_bigchunk": 300, "num_bigchunkloaders": 4,
        "maxlength_queue_smallchunk": 40, "maxlength_queue_lightdl": 200, "interval_resched": 5,
        "core-assignment": {"lightdl": None, "smallchunkloaders": None, "bigchunkloaders": None}}

train_dl = pydmed.extensions.dl.LabelBalancedDL(
    func_getlabel_of_patient=lambda patient: patient.dict_records["label"],
    dataset=dataset, type_bigchunkloader=RegionLoader, type_smallchunkcollector=PatchCollector,
    const_global_info=settings("train"), batch_size=16, tfms=tfms, fname_logfile=None,
    flag_grabqueue_onunsched=False)
train_dl.start()
labels = []
for batchcount in range(16):
    x, list_patients, list_smallchunks = train_dl.get()
    train_dl.list_smallchunksforvis = []
    for patient in list_patients:
        assert patient.dict_records["precomputed_otsu"] is None
        assert [p for p in dataset.list_patients if p == patient][0] is not patient
    labels += [patient.dict_records["label"] for patient in list_patients]
train_dl.pause_loading()

statcollector = MeanCollector(
    lightdl=DLWithInTurnSched(
        dataset=dataset, type_bigchunkloader=RegionLoader, type_smallchunkcollector=PatchCollector,
        const_global_info=settings("test"), batch_size=16, tfms=tfms,
        flag_grabqueue_onunsched=False),
    str_collectortype="accum", flag_visualizestats=False)
statcollector.start_collecting()
finals = statcollector.get_finalstats()
print(json.dumps([
    list(x.shape), np.mean(labels), {p.int_uniqueid: s["count"] for p, s in finals.items()}]))
"""


@pytest.mark.parametrize("in_a_module", [False, True], ids=["one file", "classes in a module"])
def test_a_program_of_the_author_runs(in_a_module: bool, tmp_path: Path) -> None:
    """Masks in the patients that hooks take out again, a rare label, a schedule in turn, None for
    "no more", results by name, and no import but PyDmed's."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(3):
        write_tissue_slide(slides / f"{number}.tif", 900, 800, seed=number)
    program = tmp_path / "program.py"
    if in_a_module:
        (tmp_path / "project_classes.py").write_text(CLASSES)
        stars = CLASSES.split("\nimport copy")[0]
        program.write_text(f"{stars}\nfrom project_classes import *\n{PROGRAM}")
    else:
        program.write_text(CLASSES + PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(slides)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)]),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    shape, share, counts = json.loads(done.stdout.splitlines()[-1])
    assert shape == [16, 3, 64, 64]
    assert abs(share - 0.5) < 0.05
    assert set(counts.values()) == {12}
    assert len(counts) == 9

"""A PyDmed program over chunkdl: only its import lines were changed. No data needed.

It follows PyDmed's tutorial: a class that reads some large regions of a patient's slide with
OpenSlide, one that cuts patches out of them, a `LightDL` over both, and a training loop. The
slides are made for it; the label says whether a slide is mostly tumour. There is no ``__main__``
guard, as in a notebook::

    python examples/pydmed_training.py
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import torch

import chunkdl.pydmed as pydmed
from chunkdl.pydmed.lightdl import (
    BigChunk,
    BigChunkLoader,
    LightDL,
    SmallChunk,
    SmallChunkCollector,
    get_default_constglobinf,
)
from chunkdl.pydmed.utils.data import Dataset, Patient, Record
from chunkdl.slides.synthetic.writing import write_tissue_slide

# ---- The dataset.

temporary = tempfile.TemporaryDirectory()
rootdir = temporary.name + "/"
list_patients = []
for number in range(4):
    label = number % 2
    fname = f"{number}.tif"
    tumour = 0.97 if label else 0.03
    write_tissue_slide(Path(rootdir) / fname, 1024, 1024, seed=number, tumour_fraction=tumour)
    list_patients.append(
        Patient(
            int_uniqueid=number,
            dict_records={"H&E": Record(rootdir, fname, {"resolution": "20x"}), "label": label},
        )
    )
dataset = pydmed.utils.data.Dataset("example", list_patients)
trainset, testset = Dataset.labelbalanced_splits_from(
    dataset, [50, 50], lambda patient: patient.dict_records["label"], seed=0
)


# ---- The two classes.


class WSIRandomBigchunkLoader(BigChunkLoader):
    """Reads some regions that have tissue."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> list[BigChunk]:
        """A list of regions, which mixes better than one large one."""
        wsi: Any = self.patient.dict_records["H&E"]
        osimage = openslide.OpenSlide(wsi.rootdir + wsi.relativedir)
        w = self.const_global_info["width_bigchunk"]
        list_bigchunks: list[BigChunk] = []
        while len(list_bigchunks) < 3:
            x = np.random.randint(0, osimage.dimensions[0] - w)
            y = np.random.randint(0, osimage.dimensions[1] - w)
            np_region = np.array(osimage.read_region((x, y), 0, (w, w)))[:, :, 0:3]
            if np.mean(np_region.min(axis=2) < 210) > 0.3:
                list_bigchunks.append(BigChunk(np_region, {"x": x, "y": y}, self.patient))
        return list_bigchunks


class WSIRandomSmallchunkCollector(SmallChunkCollector):
    """Cuts patches out of these regions."""

    def extract_smallchunk(
        self, call_count: int, list_bigchunks: list[BigChunk], last_message_fromroot: Any
    ) -> SmallChunk | None:
        """A patch; None where there is too little tissue: it is asked again."""
        bigchunk = random.choice(list_bigchunks)  # noqa: S311
        w = self.const_global_info["width_smallchunk"]
        y, x = np.random.randint(0, bigchunk.data.shape[0] - w, size=2)
        np_smallchunk = bigchunk.data[y : y + w, x : x + w, :]
        if np.mean(np_smallchunk.min(axis=2) < 210) < 0.5:
            return None
        return SmallChunk(
            data=np_smallchunk,
            dict_info_of_smallchunk={"x": x, "y": y},
            dict_info_of_bigchunk=bigchunk.dict_info_of_bigchunk,
            patient=bigchunk.patient,
        )


def tfms(np_smallchunk: Any) -> torch.Tensor:
    """What `torchvision.transforms.ToTensor` does."""
    return torch.from_numpy(np.ascontiguousarray(np_smallchunk)).permute(2, 0, 1) / 255


def make_dataloader(part: Dataset) -> LightDL:
    """A loader over some patients."""
    const_global_info = get_default_constglobinf()
    const_global_info["num_bigchunkloaders"] = 2
    const_global_info["maxlength_queue_smallchunk"] = 40
    const_global_info["width_bigchunk"] = 192
    const_global_info["width_smallchunk"] = 64
    return LightDL(
        part,
        WSIRandomBigchunkLoader,
        WSIRandomSmallchunkCollector,
        const_global_info,
        batch_size=32,
        tfms=tfms,
    )


# ---- Training, as ever.

torch.manual_seed(0)
model = torch.nn.Sequential(
    *(torch.nn.Conv2d(3, 16, 5, 2), torch.nn.BatchNorm2d(16), torch.nn.ReLU()),
    *(torch.nn.Conv2d(16, 32, 3, 2), torch.nn.BatchNorm2d(32), torch.nn.ReLU()),
    *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 2)),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
dataloader = make_dataloader(trainset)
dataloader.start()
seen: Counter[int] = Counter()
for batchcount in range(1, 21):
    x, patients, list_smallchunks = dataloader.get()
    y = torch.tensor([patient.dict_records["label"] for patient in patients])
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    seen.update(patient.int_uniqueid for patient in patients)
    if batchcount % 5 == 0:
        print(f"batchcount {batchcount}  loss {loss.item():.3f}")
dataloader.pause_loading()
print("patches of each patient:", dict(sorted(seen.items())))

dataloader = make_dataloader(testset)
dataloader.start()
model.eval()
right = []
with torch.no_grad():
    for _ in range(5):
        x, patients, _ = dataloader.get()
        answers = model(x).argmax(1).tolist()
        right += [
            answer == patient.dict_records["label"]
            for answer, patient in zip(answers, patients, strict=True)
        ]
dataloader.pause_loading()
temporary.cleanup()
print(f"of patches of patients never seen, {np.mean(right):.1%} are right")

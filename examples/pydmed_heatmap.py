"""A PyDmed program over chunkdl: a heat map of every slide. No data needed.

`SlidingWindowDL` gives each tile of each slide once, a `StreamCollector` asks a model about it and
writes a row per tile, and `pdmcsvtoarray` makes an array of the rows. Here the "model" measures
how dark its tile is, so that the heat map can be compared with where the tissue really is::

    python examples/pydmed_heatmap.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chunkdl.pydmed.extensions.wsi import (
    DefaultWSIxyWHvaltoRasterPoints,
    SlidingWindowBigChunkLoader,
    SlidingWindowDL,
    SlidingWindowSmallChunkCollector,
    Tensor3DtoPdmcsvrow,
    pdmcsvtoarray,
)
from chunkdl.pydmed.lightdl import get_default_constglobinf
from chunkdl.pydmed.streamcollector import ProcessedPiece, StreamCollector
from chunkdl.pydmed.utils.data import Dataset, Patient, Record
from chunkdl.slides.synthetic.writing import write_tissue_slide

KERNEL_SIZE, CELLS = 256, 8
"""Side of a tile, and cells of the heat map along it."""
SIDE = 2048

temporary = tempfile.TemporaryDirectory()
rootdir = temporary.name + "/"
truth = []
for number in range(3):
    tissue = write_tissue_slide(Path(rootdir) / f"{number}.tif", SIDE, SIDE, seed=number)
    cell = KERNEL_SIZE // CELLS
    truth.append(tissue.classes(0, 0, SIDE // cell, SIDE // cell, downsample=cell) > 0)
dataset = Dataset(
    "example",
    [Patient(number, {"H&E": Record(rootdir, f"{number}.tif")}) for number in range(3)],
)


class HeatmapStreamCollector(StreamCollector):
    """Asks a model about each tile."""

    def __init__(self, model: torch.nn.Module, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.model = model

    def process_pieceofstream(self, retval: Any) -> list[ProcessedPiece]:
        """A row of text per tile: (1, CELLS, CELLS) values and where they are."""
        x, _, list_smallchunks = retval
        with torch.no_grad():
            netout = self.model(x)
        return [
            ProcessedPiece(
                data=Tensor3DtoPdmcsvrow(netout[n], smallchunk), source_smallchunk=smallchunk
            )
            for n, smallchunk in enumerate(list_smallchunks)
        ]


class Darkness(torch.nn.Module):
    """Stands for a network: how dark the cells of a tile are, 0 to 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, CELLS, CELLS) of (B, 3, KERNEL_SIZE, KERNEL_SIZE) bytes."""
        darkest = x.float().min(dim=1, keepdim=True).values
        return 1 - torch.nn.functional.avg_pool2d(darkest, KERNEL_SIZE // CELLS) / 255


const_global_info = get_default_constglobinf()
const_global_info["num_bigchunkloaders"] = 2
dl_forheatmap = SlidingWindowDL(
    intorfunc_opslevel=0,
    kernel_size=KERNEL_SIZE,
    stride=KERNEL_SIZE,
    mininterval_loadnewbigchunk=2,
    tfms_onsmallchunkcollection=None,
    dataset=dataset,
    type_bigchunkloader=SlidingWindowBigChunkLoader,
    type_smallchunkcollector=SlidingWindowSmallChunkCollector,
    const_global_info=const_global_info,
    batch_size=10,
    tfms=None,
)
heatmaps = Path(rootdir) / "heatmaps"
heatmaps.mkdir()
collector = HeatmapStreamCollector(
    Darkness(), dl_forheatmap, "stream_to_file", kwargs_streamwriter={"rootpath": str(heatmaps)}
)
collector.start_collecting()
for patient in dataset:
    rows = heatmaps / f"patient_{patient.int_uniqueid}.csv"
    to_raster = DefaultWSIxyWHvaltoRasterPoints().func_WSIxyWHval_to_rasterpoints
    heatmap = pdmcsvtoarray(str(rows), to_raster)[:, :, 0]
    tiles = len(rows.read_text().splitlines())
    agree = np.mean((heatmap > 0.25) == truth[patient.int_uniqueid])
    print(
        f"patient {patient.int_uniqueid}: {tiles} tiles, heat map {heatmap.shape}, "
        f"{agree:.1%} of it says rightly where the tissue is"
    )
    finer = pdmcsvtoarray(str(rows), to_raster, scale_upsampleraster=2.5)
    print(f"patient {patient.int_uniqueid}: upsampled to {finer.shape[:2]}")
temporary.cleanup()

"""The published numbers of stain normalisation.

slideflow 3.0 (``slideflow/norm/utils.py``): v1 is the fit to one image, v2 was tuned by hand, v3 is
the mean of the fits of 50,000 tiles of 450 slides of TCGA. "fast" fits are those without the
standardisation of brightness. torchstain 1.4.1 has the numbers of v2.
"""

from __future__ import annotations

from collections.abc import Mapping

Matrix = tuple[tuple[float, ...], ...]
Numbers = tuple[float, ...]

MACENKO: Mapping[str, tuple[Matrix, Numbers]] = {
    "v1": (
        ((0.63111544, 0.24816133), (0.6962834, 0.8226449), (0.34188122, 0.5115382)),
        (1.4423684, 0.9685806),
    ),
    "v2": (((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581)), (1.9705, 1.0308)),
    "v3": (
        ((0.5062568, 0.2218694), (0.75322306, 0.8652155), (0.40691733, 0.42241502)),
        (1.7656903, 1.2797493),
    ),
}
"""Stain matrix and 99th percentiles of the concentrations, by name."""

MACENKO_FAST: Mapping[str, tuple[Matrix, Numbers]] = {
    "v1": (
        ((0.6148019, 0.21480364), (0.7010872, 0.82317936), (0.36124164, 0.5255809)),
        (1.8029537, 0.9606744),
    ),
    "v2": MACENKO["v2"],
    "v3": (
        ((0.52000326, 0.2623537), (0.73508584, 0.83495414), (0.4249617, 0.4630997)),
        (2.0259454, 1.4088874),
    ),
    "torchstain": MACENKO["v2"],
}
"""The same without the standardisation of brightness."""

REINHARD: Mapping[str, tuple[Numbers, Numbers]] = {
    "v1": ((72.272896, 22.99831, -13.860236), (15.594496, 9.642087, 9.290526)),
    "v2": ((72.909996, 20.8268, -4.9465137), (18.560713, 14.889295, 5.6756697)),
    "v3": ((65.22132, 28.934267, -14.142519), (15.800227, 9.263783, 6.0213304)),
}
"""Means and standard deviations in CIE LAB, by name."""

REINHARD_FAST: Mapping[str, tuple[Numbers, Numbers]] = {
    "v1": ((63.71194, 20.716246, -12.290746), (14.52781, 8.344005, 8.300264)),
    "v2": ((69.20197, 19.82498, -4.690998), (17.71583, 14.156416, 5.4176064)),
    "v3": ((58.12343, 26.483482, -12.701005), (14.675022, 7.5744166, 5.226378)),
}
"""The same without the standardisation of brightness."""

MACENKO_SPREAD: tuple[Matrix, Numbers] = (
    ((0.00893346, 0.01153686), (0.00659814, 0.00722771), (0.00726339, 0.01352414)),
    (0.06665898, 0.06770515),
)
"""Standard deviations of matrix and concentrations over the fits of those tiles."""
MACENKO_FAST_SPREAD: tuple[Matrix, Numbers] = (
    ((0.00794701, 0.01137106), (0.00559027, 0.00642623), (0.00609103, 0.01144302)),
    (0.06623945, 0.08137263),
)
REINHARD_SPREAD: tuple[Numbers, Numbers] = (
    (1.1882676, 1.3114343, 1.1200949),
    (0.5123385, 0.37919158, 0.26019168),
)
"""Standard deviations of means and standard deviations over the fits of those tiles."""
REINHARD_FAST_SPREAD: tuple[Numbers, Numbers] = (
    (1.2963034, 1.0061347, 0.90867484),
    (0.47548684, 0.3956356, 0.23499836),
)

SPREAD_TIMES: Mapping[str, float] = {"v1": 5.0, "v2": 3.0}
"""How often the spread slideflow's presets of stain augmentation take."""

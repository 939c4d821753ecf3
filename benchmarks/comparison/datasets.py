"""The real data sets of the comparison: where their files lie below the folder of data, and what their objects need.

What belongs to the objects (what labels mean, the gap between touching ones, which turns are likely) is said here and
the same for every row; a preset says the network, its training and the weight map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tifffile

from unet_pipeline.errors import PipelineError, nearest_name


@dataclass(frozen=True)
class DataSet:
    """Images with labels for each plane.

    Attributes:
        name: what the table calls it; also names its file of splits.
        images: TIFF of (planes, y, x) grey values, relative to the folder of data.
        labels: TIFF of the labels, likewise.
        axes: of both files.
        order: "sequence" where neighbouring planes are alike, so that a fold holds runs of them; else "independent".
        keys: what the objects need, as sections of the configuration; they go over the preset's.
        paper: scores that Ronneberger et al. 2015 print for the challenge's hidden test set.
        note: what a reader of the scores must know.
    """

    name: str
    images: str
    labels: str
    axes: str
    order: Literal["sequence", "independent"]
    keys: Mapping[str, Mapping[str, Any]]
    paper: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def shape(self, folder: Path) -> tuple[int, int, int]:
        """Return planes, height and width.

        Raises:
            PipelineError: there is no such file below `folder`.
        """
        path = folder / self.images
        if not path.is_file():
            fix = "set UNET_PIPELINE_DATA to the folder of data sets, or root in the configuration"
            raise PipelineError(path, f"the images of {self.name}", "no such file", fix=fix)
        return _shape(path)


@cache
def _shape(path: Path) -> tuple[int, int, int]:
    with tifffile.TiffFile(path) as tiff:
        planes, height, width = tiff.series[0].shape
    return planes, height, width


CELLS = {"kind": "instances", "classes": ["background", "cell"], "values": {}, "ignore": None}
MEMBRANES = {
    "kind": "classes",
    "classes": ["membrane", "cell"],
    "values": {0: "membrane", 255: "cell"},
    "ignore": None,
}
OBJECTS = {"score": "seg+ap50"}
UNLABELLED = "Cells cut by the border are often unlabelled: SEG forgives cells found there, AP50 does not."

DATA_SETS = {
    one.name: one
    for one in (
        DataSet(
            "isbi2012_em",
            "isbi2012_em/images.tif",
            "isbi2012_em/labels.tif",
            "zyx",
            "sequence",
            {
                "labels": MEMBRANES,
                "weigh": {"gap_px": 0},  # membranes are annotated: nothing touches
                "calibrate": {"score": "v_rand"},
                "evaluate": {"isbi": True},
            },
            {"v_rand": 0.9728, "v_info": 0.9866},
            "V_rand and V_info after thinning, at the best of the challenge's thresholds. SEG and AP50 take the "
            "connected components of cell interior as objects; the challenge has no such score.",
        ),
        DataSet(
            "ctc_dic_hela",
            "ctc_dic_hela/images.tif",
            "ctc_dic_hela/labels_silver.tif",
            "tyx",
            "sequence",
            {
                "labels": CELLS,
                "calibrate": OBJECTS,
                "normalise": {"method": "zscore"},  # DIC is grey in the middle, light and shadow around it
                "weigh": {"sigma": 10.0, "gap_px": 5},  # cells of 100 px and more
                "augment": {"rotate": "none", "flip": False},  # the shadow of DIC always falls the same way
            },
            {"seg": 0.7756},
            f"The reference is the silver one, merged by computers. {UNLABELLED}",
        ),
        DataSet(
            "ctc_phc_u373",
            "ctc_phc_u373/images.tif",
            "ctc_phc_u373/labels.tif",
            "tyx",
            "sequence",
            {
                "labels": CELLS,
                "calibrate": OBJECTS,
                "weigh": {"gap_px": 1},
            },
            {"seg": 0.9203},
            UNLABELLED,
        ),
        DataSet(
            "ctc_fluo_hela",
            "ctc_fluo_hela/images.tif",
            "ctc_fluo_hela/labels_silver.tif",
            "tyx",
            "sequence",
            {
                "labels": CELLS,
                "calibrate": OBJECTS,
                "weigh": {"gap_px": 1},
            },
            note=f"The reference is the silver one, merged by computers. {UNLABELLED}",
        ),
        DataSet(
            "dsb2018_256",
            "dsb2018_fluo/images_256x256.tif",
            "dsb2018_fluo/labels_256x256.tif",
            "zyx",
            "independent",
            {
                "labels": CELLS,
                "calibrate": OBJECTS,
                "weigh": {"sigma": 3.0, "gap_px": 1},  # nuclei of 13 px
            },
        ),
        DataSet(
            "dsb2018_520",
            "dsb2018_fluo/images_520x696.tif",
            "dsb2018_fluo/labels_520x696.tif",
            "zyx",
            "independent",
            {
                "labels": CELLS,
                "calibrate": OBJECTS,
                "weigh": {"gap_px": 1},
            },
        ),
    )
}
"""By name, in the order of the table."""


def data_sets(names: list[str]) -> list[DataSet]:
    """Return the data sets of these names.

    Raises:
        PipelineError: an unknown name; the nearest is given.
    """
    for name in names:
        if name not in DATA_SETS:
            expected = f"one of {', '.join(DATA_SETS)}"
            raise PipelineError("comparison: data", expected, name, nearest_name(name, DATA_SETS))
    return [DATA_SETS[name] for name in names]

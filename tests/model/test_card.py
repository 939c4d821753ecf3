import subprocess
import sys

import pytest

from unet_pipeline.config.sections import Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture, ModelCard, geometry, read_card, write_card
from unet_pipeline.model.normalise import Normaliser, from_statistics
from unet_pipeline.records.record import write_json
from unet_pipeline.records.stack_records import Statistics

CARD = ModelCard(
    Architecture("unet", 3, 8, 2, 3, 0.25),
    ("background", "cell", "wall"),
    Normalise("zscore", scope="model"),
    Normaliser((1.5, 0.1), (0.25, 3.0)),
    "sigmoid",
    {"steps": 7, "dice": [0.5, None]},
    "abc",
)
STATISTICS = Statistics((0.0,), (10.0,), (4.0,), (2.0,), 9, (tuple(i / 100 for i in range(1001)),))


def test_a_card_is_read_as_written(tmp_path):
    write_card(tmp_path, CARD)
    assert read_card(tmp_path) == CARD


def test_the_papers_geometry():
    assert geometry(Architecture()).read_px(384) == 572


def test_a_card_is_read_without_torch(tmp_path):
    write_card(tmp_path, CARD)
    code = (
        "import sys, pathlib; from unet_pipeline.model.card import read_card;"
        "print(read_card(pathlib.Path(sys.argv[1])).geometry.stride, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["8", "False"]


def test_a_missing_card_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"model\.json"):
        read_card(tmp_path)


def change(*path, to=None, remove=False):
    def apply(value):
        for name in path[:-1]:
            value = value[name]
        if remove:
            del value[path[-1]]
        else:
            value[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change("format", to="another model 3"), "format"),
        (change("classes", remove=True), "classes"),
        (change("classes", to=["background", "cell"]), "classes"),
        (change("classes", to=["background", "cell", "cell"]), "classes"),
        (change("classes", to="cell"), "classes"),
        (change("architecture", "depth", to=9), "architecture.depth"),
        (change("architecture", "depth", to=2), "geometry"),
        (change("architecture", "depth", remove=True), "depth"),
        (change("architecture", "dept", to=3), "nearest legal value: depth"),
        (change("architecture", "network", to="unett"), "nearest legal value: unet"),
        (change("geometry", "before", to=0), "geometry"),
        (change("activation", to="tanh"), "softmax or sigmoid"),
        (change("normalise", "method", to="zscor"), "nearest legal value: zscore"),
        (change("normaliser", to=None), "normaliser"),
        (change("normaliser", "scale", to=[0.0, 1.0]), "normaliser"),
        (change("normaliser", to={"offset": [0.0], "scale": [1.0]}), "2 channels"),
        (change("training", to=[1]), "training"),
        (change("weights_sha256", to=5), "weights_sha256"),
        (change("step", to="ensemble"), "step"),
    ],
)
def test_a_malformed_card_is_refused_and_the_fault_named(tmp_path, damage, named):
    value = CARD.to_json()
    damage(value)
    write_json(tmp_path / "model.json", value)  # with a right checksum: forged, not damaged
    with pytest.raises(PipelineError) as caught:
        read_card(tmp_path)
    assert named in str(caught.value)
    assert "model.json" in str(caught.value)


def test_a_card_that_contradicts_itself_is_not_written(tmp_path):
    with pytest.raises(PipelineError):
        write_card(tmp_path, ModelCard(Architecture(classes=3), ("background", "cell")))
    assert not list(tmp_path.iterdir())


def test_the_models_own_normaliser_goes_before_the_stacks():
    assert CARD.normaliser_of(STATISTICS, "uint8") == CARD.normaliser
    by_stack = ModelCard(Architecture(), ("background", "cell"), Normalise("zscore"))
    assert by_stack.normaliser_of(STATISTICS, "uint8") == from_statistics(Normalise("zscore"), STATISTICS, "uint8")


def test_an_image_with_other_channels_is_refused():
    CARD.check_image(2, "stack a")
    with pytest.raises(PipelineError, match="stack a: expected 2 channels"):
        CARD.check_image(1, "stack a")

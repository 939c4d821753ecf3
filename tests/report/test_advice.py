"""Each advice: given where its facts are recorded, and not where they are not."""

from types import SimpleNamespace

import pytest

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.records.score_records import Faults
from unet_pipeline.report.advice import advise
from unet_pipeline.report.curves import History

TRAIN = {"steps": 800, "selected": "best", "selected_step": 500, "stacks": ["train"], "validation_stacks": ["val"],
         "validation_dice": [0.9, 0.8, 0.7], "settings": {"train": {"steps": 800}}}  # fmt: skip
CLASSES = ("background", "cell", "spore")


def model(history=None, **training):
    known = {name: value for name, value in (TRAIN | training).items() if value is not None}
    return SimpleNamespace(card=SimpleNamespace(training=known, classes=CLASSES), history=history)


def stack(name="unseen", role=None, pixel_um=(0.5, 0.5), labels=(900, 90, 10), **facts):
    counts = dict(zip(CLASSES, labels, strict=True))
    ingested = SimpleNamespace(labels=SimpleNamespace(class_counts=counts))
    record = SimpleNamespace(grid=SimpleNamespace(pixel_um=pixel_um), ingested=ingested)
    known = {"plan": None, "stitch": None, "metrics": None, "weigh": None} | facts
    return SimpleNamespace(name=name, role=role, stack=record, **known)


def learned(name="train", **facts):
    known = {"role": "training"} | facts
    return stack(name, weigh=SimpleNamespace(class_counts=dict(zip(CLASSES, (900, 90, 10), strict=True))), **known)


def scored(drawn=100, found=100, pairs=98, confusion=None, made=None, given=(1, 1, 1), **facts):
    """A stack that was predicted and scored."""
    kinds = ("missed", "joined", "split", "spurious", "rough")
    faults = Faults(**{kind: facts.pop(kind, 0) for kind in kinds}, worst=())
    ap = {"0.50": SimpleNamespace(true_positives=pairs)}
    confusion = confusion or ((80, 0, 0), (0, 10, 0), (0, 0, 10))
    classes = tuple(
        SimpleNamespace(reference_pixels=sum(row), result_pixels=sum(column))
        for row, column in zip(confusion, zip(*confusion, strict=True), strict=True)
    )
    instances = SimpleNamespace(objects=drawn, found=found, ap=ap)
    metrics = SimpleNamespace(instances=instances, faults=faults, classes=classes, confusion=confusion)
    stitch = SimpleNamespace(
        objects=found, made=made or ObjectSettings(), classes=tuple(SimpleNamespace(pixels=pixels) for pixels in given)
    )
    return stack(plan=True, stitch=stitch, metrics=metrics, **facts)


def said(results, **facts):
    return [f"{one.do}. Because {one.why}." for one in advise(model(**facts), results)]


GOOD = [scored(), learned(), learned("val", role="validation")]


def test_nothing_is_advised_where_all_is_well():
    assert said(GOOD) == []


def test_a_training_that_was_still_getting_better_is_to_go_on():
    (text,) = said(GOOD, selected_step=800)
    assert text == (
        "Train longer: raise train.steps (now 800). Because the best weights are at the last step, 800: "
        "the validation was still getting better."
    )
    assert said(GOOD, selected_step=800, ended="no validation was better") == []
    assert said(GOOD, selected="last", selected_step=800) == [], "it was not chosen"
    members = [{"selected": "best", "selected_step": step} for step in (800, 800, 500)]
    (text,) = said(GOOD, steps=None, selected=None, members=members)
    assert "2 of 3 networks were best at the last step" in text
    members[1]["selected_step"] = 300
    assert said(GOOD, steps=None, selected=None, members=members) == []


def history(validation, training):
    return History({
        "validation_loss": [(200.0 * (row + 1), loss) for row, loss in enumerate(validation)],
        "train_loss": [(200.0 * (row + 1), loss) for row, loss in enumerate(training)],
    })  # fmt: skip


def test_planes_learned_by_heart_are_told():
    falling = (0.8, 0.4, 0.2, 0.1)
    (text,) = said(GOOD, history=history((0.5, 0.3, 0.4, 0.5), falling), selected_step=400)
    assert "Label more planes" in text and "best at step 400 of 800 (loss 0.300) and got worse since (0.500)" in text
    assert said(GOOD, history=history((0.5, 0.3, 0.31, 0.32), falling), selected_step=400) == []
    assert said(GOOD, history=history((0.5, 0.4, 0.3, 0.5), falling), selected_step=600) == [], "late"
    assert said(GOOD, history=history((0.5, 0.3, 0.4, 0.5), (0.2, 0.2, 0.8, 0.9)), selected_step=400) == []


@pytest.mark.parametrize(("method", "words"), [
    ("components", "Lower stitch.threshold (now the likeliest class)"),
    ("watershed", "Lower stitch.seed (now 0.8), or raise stitch.seed_min_area_px (now 10)"),
    ("distance", "Lower stitch.neck (now 0.7) or raise stitch.smooth_px (now 0)"),
])  # fmt: skip
def test_three_times_as_many_objects_found_as_drawn(method, words):
    made = ObjectSettings(method=method)
    (text,) = said([scored(100, 300, 95, split=4, spurious=1, made=made), *GOOD[1:]])
    assert text == f"{words}{', so that parts stay together' if method == 'components' else ''}. Because " + (
        "3.0 times as many objects found as drawn in unseen (300 to 100)."
    )


@pytest.mark.parametrize(("method", "words"), [
    ("components", "Set stitch.method: distance or watershed"), ("watershed", "Raise stitch.seed (now 0.8)"),
    ("distance", "Raise stitch.neck (now 0.7)"),
])  # fmt: skip
def test_objects_that_are_joined(method, words):
    (text,) = said([scored(100, 50, 40, joined=30, made=ObjectSettings(method=method)), *GOOD[1:]])
    assert text.startswith(words) and "raise weigh.w0" in text
    assert "0.50 times as many objects found as drawn" in text and "30 objects of unseen join several" in text
    assert said([scored(joined=4), *GOOD[1:]]) == []


def test_what_is_divided_too_much_and_too_little_at_once():
    (text,) = said([scored(joined=12, split=15, made=ObjectSettings(method="watershed")), *GOOD[1:]])
    assert text.startswith("Label more such planes, or train longer") and "stitch.seed" not in text
    assert "15 objects of unseen split and 12 objects of unseen join several drawn ones" in text


def test_objects_that_are_missed_or_spurious():
    (text,) = said([scored(missed=6), *GOOD[1:]])
    assert "Label planes with objects like those missed" in text and "6 of 100 drawn objects of unseen missed" in text
    (text,) = said([scored(100, 160, 95, spurious=60, made=ObjectSettings(threshold=0.5)), *GOOD[1:]])
    assert "Raise stitch.min_area_px (now 30)" in text and "60 objects found where nothing is drawn" in text
    assert said([scored(missed=4, spurious=4, split=4), *GOOD[1:]]) == [], "rare"


def test_objects_that_are_too_large():
    wide = ((60, 10, 0), (0, 20, 0), (0, 0, 0))
    (text,) = said([scored(confusion=wide, made=ObjectSettings(threshold=0.3)), *GOOD[1:]])
    assert "Raise stitch.threshold (now 0.3), or lower stitch.grow_px (now 1)" in text
    assert "1.5 times as many pixels" in text


def test_a_stack_in_which_nothing_was_found():
    empty = SimpleNamespace(objects=0, classes=GOOD[0].stitch.classes)
    (text,) = said([scored(), stack("new", plan=True, stitch=empty), *GOOD[1:]])
    assert "no object was found in new" in text and "lower stitch.threshold" in text


def test_a_class_that_no_validation_plane_shows():
    (text,) = said([scored(), learned(), learned("val", role="validation", labels=(900, 90, 0))])
    assert text.startswith("Let a stack with spore validate") and "no plane that validated shows class spore" in text
    (text,) = said(GOOD[:2], validation_stacks=None, held_out=[{}], validation_dice=[0.9, 0.8, None])
    assert "shows class spore" in text


def test_a_class_that_is_never_given():
    (text,) = said([scored(given=(90, 10, 0)), *GOOD[1:]])
    assert "no pixel was given to class spore, which takes 1.00% of the labels that train" in text


def test_without_validation():
    (text,) = said(GOOD[:2], selected="last", selected_step=800, validation_stacks=None)
    assert "role val" in text and "not calibrated" in text


def test_scores_that_say_little():
    (text,) = said([stack("new", plan=True, stitch=GOOD[0].stitch), *GOOD[1:]])
    assert "nothing says how good the result is" in text
    (text,) = said([scored(name="val", role="validation"), learned()])
    assert "how the model does on others is not known" in text


def test_a_stack_unlike_those_that_validated():
    (text,) = said([scored(pairs=60), scored(name="val", role="validation"), learned()])
    assert "its F1 is 0.600, that of the planes that validated 0.980" in text
    assert said([scored(pairs=90), scored(name="val", role="validation"), learned()]) == []


def test_pixels_of_another_size():
    (text,) = said([scored(pixel_um=(1.0, 1.0)), *GOOD[1:]])
    assert "its pixels are 2 times as wide as theirs" in text
    assert said([scored(pixel_um=None), *GOOD[1:]]) == []

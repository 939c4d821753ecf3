"""Is it good, and where is it wrong: the words that follow from records."""

from types import SimpleNamespace

import pytest

from unet_pipeline.records.score_records import Fault, Faults
from unet_pipeline.report.answers import Answers, Counts, fault_words, words_of, worst
from unet_pipeline.report.outlined import Marked


def result(name="a", worst=(), **counts):
    kinds = dict.fromkeys(("missed", "joined", "split", "spurious", "rough"), 0) | counts
    return SimpleNamespace(name=name, metrics=SimpleNamespace(faults=Faults(**kinds, worst=tuple(worst))))


def fault(kind, pixels, number=1):
    return Fault(kind, number, 2, pixels, (0, 10, 20), (3, 14, 30))


@pytest.mark.parametrize(("drawn", "found", "pairs", "words"), [
    (100, 100, 98, "Nearly all of the drawn objects are found, and nearly all of those found are right."),
    (100, 400, 98, "Nearly all of the drawn objects are found, but most of those found are wrong."),
    (100, 150, 85, "Most of the drawn objects are found, but many of those found are wrong."),
    (100, 40, 38, "Less than half of the drawn objects are found, but nearly all of those found are right."),
    (100, 100, 60, "More than half of the drawn objects are found, and more than half of those found are right."),
    (100, 90, 85, "Most of the drawn objects are found, and most of those found are right."),
    (100, 50, 5, "Few of the drawn objects are found, and few of those found are right."),
    (100, 0, 0, "No object was found."),
    (100, 10, 0, "No object that is drawn was found."),
    (0, 1, 0, "No object is drawn in the reference, and 1 was found."),
    (0, 0, 0, "No object is drawn in the reference, and 0 were found."),
])  # fmt: skip
def test_how_good_it_is(drawn, found, pairs, words):
    assert Counts(drawn, found, pairs).headline == words


def test_the_numbers_behind_it():
    assert Counts(1000, 50, 40).detail == (
        "Of 1,000 objects drawn, 40 were found (4.0%, the recall); of 50 found, 40 are right (80.0%, the precision)."
    )
    assert Counts(0, 3, 0).detail == "of 3 found, 0 are right (0.0%, the precision)."
    assert Counts(0, 0, 0).detail == ""


def test_counts_of_several_stacks_add_up():
    def scored(drawn, found, pairs):
        ap = {"0.50": SimpleNamespace(true_positives=pairs)}
        return SimpleNamespace(metrics=SimpleNamespace(instances=SimpleNamespace(objects=drawn, found=found, ap=ap)))

    assert Counts.of([scored(1, 2, 1), scored(10, 20, 5), SimpleNamespace(metrics=None)]) == Counts(11, 22, 6)


def test_stacks_that_the_model_has_not_seen_are_judged_where_there_are_any():
    def scored(name, role):
        one = result(name)
        ap = {"0.50": SimpleNamespace(true_positives=1)}
        one.metrics.instances = SimpleNamespace(objects=1, found=1, ap=ap)
        return SimpleNamespace(name=name, metrics=one.metrics, role=role, plan=None)

    known = [scored("trained", "training"), scored("validated", "validation")]
    answers = Answers.of(known)
    assert answers.seen and [one.name for one in answers.judged] == ["trained", "validated"]
    answers = Answers.of([scored("new", None), scored("folds", "cross-validation"), *known])
    assert not answers.seen and [one.name for one in answers.judged] == ["new", "folds"]
    assert answers.overview is None and answers.crops == [] and answers.counts == Counts(2, 2, 2)
    nothing = Answers.of([SimpleNamespace(name="a", metrics=None, role=None, plan=None)])
    assert nothing.judged == [] and not nothing.seen


def test_faults_in_words():
    assert fault_words([result(missed=1, joined=2), result(missed=1200, rough=1), SimpleNamespace(metrics=None)]) == [
        "1,201 drawn objects missed",
        "2 found objects that join several drawn ones",
        "1 object found with an outline that is far off",
    ]
    assert fault_words([result()]) == []


def test_the_worst_of_each_kind_come_before_others():
    one = result("a", [fault("missed", px) for px in (90, 80, 70, 60)] + [fault("rough", 3)])
    two = result("b", [fault("missed", 90, 2), fault("split", 50), fault("joined", 85)])
    shown = worst([one, two, SimpleNamespace(metrics=None)], 5)
    assert [(at.name, one.kind, one.pixels) for at, one in shown] == [
        ("a", "missed", 90), ("b", "missed", 90), ("b", "joined", 85), ("b", "split", 50), ("a", "rough", 3),
    ]  # fmt: skip
    assert worst([result()], 5) == []


@pytest.mark.parametrize(("kind", "words"), [
    ("joined", "one object where 2 are drawn"), ("split", "2 objects where one is drawn"),
    ("missed", "no object covers more than half"), ("spurious", "where no object is drawn"),
    ("rough", "half of its pixels"),
])  # fmt: skip
def test_what_is_wrong_and_where(kind, words):
    text = words_of(Marked(1, result("plants"), fault(kind, 5)), 2)
    assert words in text and text.endswith("plants, plane 2, row 12, column 25.")

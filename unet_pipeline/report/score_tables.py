"""The scores of a run as tables, instances first, and what each of them means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unet_pipeline.report.html import Markup, count, explained, joined, link, number, paragraph, table, tag
from unet_pipeline.report.results import CROSS, StackResult

ISBI = {
    "v_rand": "V_rand, thinned",
    "v_info": "V_info, thinned",
    "rand_error": "Rand error",
    "pixel_error": "pixel error",
    "warping_error": "warping error",
    "splits_mergers_error": "splits and mergers",
}

INSTANCE_TERMS = (
    (
        "SEG",
        "of the Cell Tracking Challenge: the mean Jaccard index over all objects of the reference; an object no result "
        "covers by more than half counts 0. Objects found in excess cost nothing.",
    ),
    (
        "AP at an IoU threshold",
        "true positives / (true positives + false positives + false negatives), where a pair counts from that overlap "
        "on. Missed and excess objects both cost. The mean is over 0.50, 0.55 … 0.95.",
    ),
)

PARTITION_TERMS = (
    (
        "V_rand",
        "how likely two pixels of the reference's foreground are together in both, with large objects counting more. "
        "The split part falls when objects are cut, the merge part when they are joined.",
    ),
    (
        "V_info",
        "the information that result and reference share, over the foreground of the reference; less swayed by large "
        "objects. Split and merge as for V_rand. Borders are not thinned here: do not compare with ISBI's.",
    ),
)

CLASS_TERMS = (
    (
        "Dice and IoU",
        "overlap of the pixels of a class, 2|A∩B| / (|A|+|B|), also F-score, and |A∩B| / |A∪B|. They cannot tell "
        "one object from two that touch: a good value does not mean that objects are told apart.",
    ),
    (
        "Recall and precision",
        "the share of a class's reference pixels that are found, also called class accuracy, and the share of the "
        "pixels given to a class that are right.",
    ),
)

PIXEL_TERMS = (
    (
        "Pixel accuracy",
        "the share of the annotated pixels whose class is right; large classes, often the background, rule it.",
    ),
    ("Mean class accuracy", "the mean of recall over the classes of the reference."),
    (
        "mIoU and mean Dice",
        "means over the classes present: a class that neither reference nor result has is left out, one that only the "
        "result has counts 0. Other programs treat absent classes otherwise.",
    ),
)

ISBI_TERMS = (
    ("V_rand and V_info, thinned", "the scores ranked today; 1 is best. Borders are thinned before they are taken."),
    (
        "Rand, pixel and warping error",
        "the older errors; 0 is best. Warping counts the pixels that differ after borders may move without a change "
        "of topology; splits and mergers are those of them that cut or join cells.",
    ),
    (
        "Threshold",
        "the probability of cell interior above which a pixel is interior; the best of 0.0, 0.1 … 0.9 for each score.",
    ),
)

PIXELS = {
    "accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "mean_iou": "mIoU",
    "mean_iou_foreground": "mIoU without background",
    "mean_dice": "mean Dice",
}

CONFUSION = (
    "What became of the annotated pixels of each class of the reference: the share that the result gives to each "
    "class, and the pixels. confusion.csv of a stack holds its table."
)

SEEN = (
    "Stacks marked training or validation had a part in making the model: "
    "their scores do not tell how it does on images it has not seen."
)

OUT_OF_FOLD = (
    "Of stacks marked cross-validation each plane was predicted by the one model that had not learned from it. With "
    "train.select: best that plane helped to choose the step whose weights were kept, which favours the score a little."
)

OWN_SPLIT = (
    "Scores of the ISBI and Cell Tracking challenges are those of their hidden test sets. The same formulas on a split "
    "of one's own, as here, give other values: do not put them in one table."
)


def score_tables(results: Sequence[StackResult], anchors: dict[str, str]) -> Markup:
    """Return all tables of scores.

    Args:
        results: all stacks; those without metrics are left out.
        anchors: where on the page a stack is, by its name.
    """
    scored = [result for result in results if result.metrics is not None]
    if not scored:
        return paragraph("No stack of this run was scored: none that was predicted has labels.")
    links = {result.name: named(result, anchors[result.name]) for result in scored}
    metrics = {links[result.name]: result.metrics for result in scored if result.metrics is not None}
    parts = [_instances(metrics), explained(INSTANCE_TERMS), _partitions(metrics), explained(PARTITION_TERMS)]
    parts += [_pixels(metrics), explained(PIXEL_TERMS), _classes(metrics), explained(CLASS_TERMS)]
    parts += [_confusion(metrics), paragraph(CONFUSION), *_isbi(metrics), paragraph(OWN_SPLIT, kind="note")]
    roles = {result.role for result in scored}
    notes = [OUT_OF_FOLD] * (CROSS in roles) + [SEEN] * bool(roles - {None, CROSS})
    for note in notes:
        parts.insert(1, paragraph(note, kind="note"))
    return joined(parts)


def named(result: StackResult, anchor: str) -> Markup:
    """Return the name of a stack as a link, and whether training has seen it."""
    seen = "" if result.role is None else f" ({result.role})"
    return joined([link(anchor, result.name), seen], "")


def mean_average_precision(instances: dict[str, Any]) -> float | None:
    """Return the mean of average precision over all IoU thresholds; None where one has no value."""
    values = [score["average_precision"] for score in instances["ap"].values()]
    return None if not values or None in values else sum(values) / len(values)


def _instances(metrics: dict[Markup, dict[str, Any]]) -> Markup:
    rows = []
    for name, facts in metrics.items():
        one = facts["instances"]
        precisions = [one["ap"][threshold]["average_precision"] for threshold in ("0.50", "0.75")]
        counts = [count(one[key]) for key in ("objects", "matched", "found")]
        rows.append([name, *map(number, (one["seg"], *precisions, mean_average_precision(one))), *counts])
    head = ["Stack", "SEG", "AP50", "AP75", "mean AP", "objects", "matched", "found"]
    return table("Instances", head, rows)


def _partitions(metrics: dict[Markup, dict[str, Any]]) -> Markup:
    parts = ("value", "split", "merge")
    rows = [
        [name, *(number(facts["instances"][score][part]) for score in ("v_rand", "v_info") for part in parts)]
        for name, facts in metrics.items()
    ]
    head = ["Stack", "V_rand", "split", "merge", "V_info", "split", "merge"]
    return table("Partition of the foreground", head, rows)


def _classes(metrics: dict[Markup, dict[str, Any]]) -> Markup:
    scores = ("dice", "iou", "precision", "recall")
    rows = [
        [name, one["name"], *(number(one[score]) for score in scores), count(one["reference_pixels"])]
        for name, facts in metrics.items()
        for one in facts["classes"]
    ]
    head = ["Stack", "Class", "Dice", "IoU", "precision", "recall", "pixels of reference"]
    return table("Pixels of each class", head, rows, names=2)


def _pixels(metrics: dict[Markup, dict[str, Any]]) -> Markup:
    rows = [[name, *(number(facts["pixels"][score]) for score in PIXELS)] for name, facts in metrics.items()]
    return table("Pixels of all classes", ["Stack", *PIXELS.values()], rows)


def _confusion(metrics: dict[Markup, dict[str, Any]]) -> Markup:
    names = [one["name"] for one in next(iter(metrics.values()))["classes"]]
    rows = [
        [name, one["name"], *_shares(counts[: len(names)])]
        for name, facts in metrics.items()
        for one, counts in zip(facts["classes"], facts["confusion"], strict=False)
    ]
    return table(
        "Confusion of classes", ["Stack", "Class of reference", *(f"→ {name}" for name in names)], rows, names=2
    )


def _shares(counts: Sequence[int]) -> list[Markup]:
    """Return cells with the pixels and the share of the row that each is, the larger the darker."""
    total = sum(counts)
    return [_share(pixels, pixels / total if total else 0) for pixels in counts]


def _share(pixels: int, share: float) -> Markup:
    words = joined([f"{100 * share:.1f} %", tag("small", count(pixels))], " ")
    return tag("span", words, {"class": "share", "style": f"background:rgba(0,114,178,{0.4 * share:.3f})"})


def _isbi(metrics: dict[Markup, dict[str, Any]]) -> list[Markup]:
    rows, skipped = [], []
    for name, facts in metrics.items():
        if (one := facts["isbi"]) is None:
            continue
        if "skipped" in one:
            skipped.append(paragraph(name, f": no ISBI scores, {one['skipped']}."))
            continue
        for key, title in ISBI.items():
            best = one[key]
            values = [number(best["value"], 4), number(best["threshold"], 1)]
            rows.append([name, title, *values, number(best["split"], 4), number(best["merge"], 4)])
    if not rows:
        return skipped
    head = ["Stack", "Score", "value", "best threshold", "split", "merge"]
    return [table("As in ISBI 2012", head, rows, names=2), *skipped, explained(ISBI_TERMS)]

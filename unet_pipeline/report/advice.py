"""The third question of the page: what next. Each advice follows from recorded facts and names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.model.calibration import other_size
from unet_pipeline.records.score_records import EvaluateRecord
from unet_pipeline.report.answers import Counts
from unet_pipeline.report.render import count, number, plural
from unet_pipeline.report.results import CROSS, ModelResult, StackResult

MANY, FEW = 1.5, 1 / 1.5
"""Objects found over objects drawn, beyond which that alone is told."""

OFTEN = 0.05
"""Share of the drawn objects from which a kind of fault is told."""

WORSE = 1.1
"""Validation loss at the end over the best one, from which a network has learned its training planes by heart."""

FAR = 0.15
"""F1 of validation less that of unseen stacks, from which those are called unlike."""


@dataclass(frozen=True)
class Advice:
    """What to do, and the facts it follows from."""

    do: str
    why: str


def advise(model: ModelResult, results: Sequence[StackResult]) -> list[Advice]:
    """Return what would make the result better or the scores worth more, the first things first."""
    predicted = [result for result in results if result.plan is not None]
    found = [*_nothing_found(predicted)]
    for result in (one for one in predicted if one.role in (None, CROSS) and one.metrics is not None):
        found += _of_objects(result)
    return [*found, *_of_training(model), *_of_classes(model, results), *_of_stacks(results)]


def _nothing_found(predicted: Sequence[StackResult]) -> Iterator[Advice]:
    for result in predicted:
        if result.stitch is not None and not result.stitch.objects:
            yield Advice(
                f"Look at the probabilities of {result.name}: where objects are faint in them, lower stitch.threshold; "
                "where they are not there, label some of its planes and train again",
                f"no object was found in {result.name}",
            )


def _of_objects(result: StackResult) -> Iterator[Advice]:
    """Advise where objects of a stack that the model has not seen are too many, too few or too large."""
    if result.metrics is None or result.stitch is None or not result.metrics.instances.objects:
        return
    drawn, found = result.metrics.instances.objects, result.metrics.instances.found
    faults, made = result.metrics.faults, result.stitch.made
    ratio = found / drawn
    said = ""
    if ratio >= MANY:
        said = f"{ratio:.1f} times as many objects found as drawn in {result.name} ({count(found)} to {count(drawn)})"
    elif 0 < ratio <= FEW:
        said = f"{ratio:.2f} times as many objects found as drawn in {result.name} ({count(found)} to {count(drawn)})"
    splits = faults.split and (faults.split >= OFTEN * drawn or (ratio >= MANY and faults.split > faults.spurious))
    joins = faults.joined and faults.joined >= OFTEN * drawn
    divided = f"{plural(faults.split, 'object')} of {result.name} split"
    together = f"{plural(faults.joined, 'object')} of {result.name} join several drawn ones"
    if splits and joins:
        do = "Label more such planes, or train longer: dividing objects more or less would trade one for the other"
        yield Advice(do, f"{divided} and {together}")
    elif splits:
        yield Advice(_fewer_parts(made), said or divided)
    elif joins:
        yield Advice(_more_parts(made), f"{said}; {together}" if said else together)
    if faults.spurious >= OFTEN * drawn and faults.spurious:
        why = f"{plural(faults.spurious, 'object')} found where nothing is drawn in {result.name}"
        do = f"Raise stitch.min_area_px (now {made.min_area_px}) if they are small, or stitch.threshold"
        yield Advice(f"{do}; or draw what is missing from the reference", f"{said}; {why}" if ratio >= MANY else why)
    if faults.missed >= OFTEN * drawn and faults.missed:
        why = f"{count(faults.missed)} of {plural(drawn, 'drawn object')} of {result.name} missed"
        do = "Label planes with objects like those missed and train again"
        yield Advice(f"{do}; or lower stitch.threshold and stitch.min_area_px (now {made.min_area_px})", why)
    yield from _too_large(result.name, result.metrics, made)


def _fewer_parts(made: ObjectSettings) -> str:
    """Say what divides objects less."""
    by_method = {
        "components": f"Lower stitch.threshold (now {_threshold(made)}), so that parts stay together",
        "watershed": f"Lower stitch.seed (now {made.seed:g}), or raise stitch.seed_min_area_px "
        f"(now {made.least_seed_px})",
        "distance": f"Lower stitch.neck (now {made.neck:g}) or raise stitch.smooth_px (now {made.smooth_px:g})",
    }
    return by_method[made.method]


def _more_parts(made: ObjectSettings) -> str:
    """Say what divides objects more."""
    by_method = {
        "components": "Set stitch.method: distance or watershed, which divide objects that touch",
        "watershed": f"Raise stitch.seed (now {made.seed:g})",
        "distance": f"Raise stitch.neck (now {made.neck:g})",
    }
    return f"{by_method[made.method]}; or raise weigh.w0 and train again, so that borders count more"


def _threshold(made: ObjectSettings) -> str:
    return "the likeliest class" if made.threshold is None else f"{made.threshold:g}"


def _too_large(name: str, metrics: EvaluateRecord, made: ObjectSettings) -> Iterator[Advice]:
    """Advise where nearly all that is drawn is covered, and much around it."""
    inside = sum(one.reference_pixels for one in metrics.classes[1:])
    given = sum(one.result_pixels for one in metrics.classes[1:])
    shared = sum(sum(row[1:]) for row in metrics.confusion[1:])
    if inside and given and shared / inside >= 0.95 and shared / given <= 0.8:
        covered, many = (
            f"{shared / inside:.0%} of the drawn pixels",
            f"{given / inside:.1f} times as many pixels in all",
        )
        why = f"{covered} of {name} were found, but {many}"
        grown = f", or lower stitch.grow_px (now {made.grow_px})" if made.grow_px else ""
        yield Advice(f"Raise stitch.threshold (now {_threshold(made)}){grown}: objects are too large", why)


def _of_training(model: ModelResult) -> Iterator[Advice]:
    record = model.card.training
    members = [one for one in record.get("members") or () if isinstance(one, Mapping)]
    settings = record.get("settings") or {}
    steps = (settings.get("train") or {}).get("steps") or record.get("steps")
    runs: list[Mapping[str, Any]] = members or [record]
    last = [one for one in runs if _is_last(one, steps)]
    if isinstance(steps, int) and last and 2 * len(last) > len(runs):
        who = "the best weights are" if not members else f"{len(last)} of {len(members)} networks were best"
        why = f"{who} at the last step, {count(steps)}: the validation was still getting better"
        yield Advice(f"Train longer: raise train.steps (now {count(steps)})", why)
    if model.history is not None and not members:
        yield from _by_heart(model, record.get("selected_step"))
    if record.get("selected") == "last" and not members and not _validated(record):
        yield Advice(
            "Give a labelled stack the role val, or set train.hold_out",
            "no plane validated: the weights are those of the last step, and objects are not calibrated",
        )


def _is_last(record: Mapping[str, Any], steps: object) -> bool:
    """Whether the weights that were kept are those of the last step, by validation and not for want of one."""
    return record.get("selected") == "best" and record.get("selected_step") == steps and "ended" not in record


def _validated(record: Mapping[str, Any]) -> bool:
    return bool(record.get("validation_stacks") or record.get("held_out"))


def _by_heart(model: ModelResult, best: object) -> Iterator[Advice]:
    """Advise where the loss of validation rises again and that of training goes on falling."""
    assert model.history is not None
    checked, trained = model.history.column("validation_loss"), model.history.column("train_loss")
    if not checked or not trained or not isinstance(best, int):
        return
    (step, low), (_, end) = min(checked, key=lambda point: point[1]), checked[-1]
    before = [loss for at, loss in trained if at <= step]
    after = [loss for at, loss in trained if at > step]
    falls = before and after and sum(after) / len(after) < sum(before) / len(before)
    if low > 0 and end >= WORSE * low and 2 * step <= model.history.steps and falls:
        best_at = f"validation was best at step {count(step)} of {count(model.history.steps)} (loss {number(low)})"
        why = (
            f"{best_at} and got worse since ({number(end)}), while the training loss went on falling: learned by heart"
        )
        yield Advice("Label more planes, or augment more strongly (section augment)", why)


def _of_classes(model: ModelResult, results: Sequence[StackResult]) -> Iterator[Advice]:
    """Advise on classes that nobody could choose weights by, and on those that are never given."""
    record = model.card.training
    stacks = record.get("validation_stacks") or ()
    checked = [one.stack.ingested.labels for one in results if one.role == "validation"]
    counts = [one.class_counts for one in checked if one is not None]
    dice = record.get("validation_dice") or []
    for index, name in enumerate(model.card.classes[1:], 1):
        absent = bool(counts) and len(counts) == len(stacks) and not any(one.get(name, 0) for one in counts)
        if absent or (len(dice) == len(model.card.classes) and dice[index] is None):
            yield Advice(
                f"Let a stack with {name} validate (role val)",
                f"no plane that validated shows class {name}: nothing says how well it is learned",
            )
    given = [one.stitch.classes for one in results if one.stitch is not None]
    trained = [one.weigh.class_counts for one in results if one.weigh is not None and one.role == "training"]
    for index, name in enumerate(model.card.classes[1:], 1):
        if (
            given
            and trained
            and not any(one[index].pixels for one in given)
            and any(one.get(name, 0) for one in trained)
        ):
            share = sum(one.get(name, 0) for one in trained) / max(1, sum(sum(one.values()) for one in trained))
            yield Advice(
                f"Label more of class {name}, or set train.class_weights",
                f"no pixel was given to class {name}, which takes {share:.2%} of the labels that train",
            )


def _of_stacks(results: Sequence[StackResult]) -> Iterator[Advice]:
    """Advise on stacks: whether scores say anything, and whether images are like those that train."""
    predicted = [one for one in results if one.plan is not None]
    scored = [one for one in predicted if one.metrics is not None]
    unseen = [one for one in scored if one.role in (None, CROSS)]
    if predicted and not scored:
        why = "no stack that was predicted has labels, so nothing says how good the result is"
        yield Advice("Label a few planes that do not train and give them the role test", why)
    elif scored and not unseen:
        why = "all stacks that are scored trained or validated: how the model does on others is not known"
        yield Advice("Give a labelled stack the role test, or set train.folds", why)
    for result in unseen:
        known, own = _f1([one for one in scored if one.role == "validation"]), _f1([result])
        if known is not None and own is not None and known - own >= FAR:
            yield Advice(
                f"Label some planes of {result.name}, or of images like it, and train again",
                f"its F1 is {number(own)}, that of the planes that validated {number(known)}: it is unlike them",
            )
    learned = [one.stack.grid.pixel_um for one in results if one.role == "training"]
    for result in predicted:
        factors = [other_size(result.stack.grid.pixel_um, size) for size in learned]
        if factors and all(factors):
            factor = f"{factors[0]:.3g}"
            yield Advice(
                f"Bring {result.name} to the pixel size of the stacks that train, or train on such pixels too",
                f"its pixels are {factor} times as wide as theirs: objects look another size to the network",
            )


def _f1(results: Sequence[StackResult]) -> float | None:
    counts = Counts.of(results)
    both = counts.drawn + counts.found
    return 2 * counts.pairs / both if results and both else None

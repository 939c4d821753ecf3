import io
import re

import numpy as np
import pytest
from made_results import make_history
from PIL import Image

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import HISTORY_FILE
from unet_pipeline.report import curves
from unet_pipeline.report.curves import read_history
from unet_pipeline.train.history import Row, history_text


def written(tmp_path, text):
    path = tmp_path / "history.tsv"
    path.write_text(text, encoding="utf-8")
    return read_history(path)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count(png, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(png) - wanted).max(axis=2) < 12).sum())


def test_what_training_writes_is_read(tmp_path):
    rows = [Row(10, 0.1, 0.9), Row(20, 0.05, 0.5, 0.6, (0.9, None)), Row(30, 0.0, 0.4, 0.7, (0.95, 0.8))]
    (tmp_path / HISTORY_FILE).write_text(history_text(rows, ("background", "cell")))
    history = read_history(tmp_path / "history.tsv")
    assert history.steps == 30
    assert history.column("learning_rate") == [(10, 0.1), (20, 0.05), (30, 0.0)]
    assert history.column("train_loss") == [(10, 0.9), (20, 0.5), (30, 0.4)]
    assert history.column("validation_loss") == [(20, 0.6), (30, 0.7)]
    assert history.dice == {"background": [(20, 0.9), (30, 0.95)], "cell": [(30, 0.8)]}


def test_columns_may_be_more_or_fewer(tmp_path):
    history = written(tmp_path, "epoch\tstep\ttrain_loss\n1\t5\t0.5\n2\t9\tnan\n3\t12\n")
    assert history.column("epoch") == [(5, 1), (9, 2), (12, 3)]
    assert history.column("train_loss") == [(5, 0.5)]
    assert history.column("validation_loss") == []
    assert (history.dice, history.kept(None), history.steps) == ({}, None, 12)


@pytest.mark.parametrize("text", ["", "loss\n1\n", "step\ttrain_loss\n1\tlow\n"])
def test_a_foreign_table_is_refused(tmp_path, text):
    with pytest.raises(PipelineError, match=r"history\.tsv"):
        written(tmp_path, text)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"history\.tsv"):
        read_history(tmp_path / "history.tsv")


def test_the_kept_step(tmp_path):
    history = written(tmp_path, "step\tvalidation_loss\n1\t0.5\n2\t0.3\n3\t0.3\n4\t0.9\n")
    assert history.kept(None) == (2, 0.3)
    assert history.kept(4) == (4, 0.9)
    assert history.kept(99) is None


def test_curves_show_their_lines(tmp_path):
    history = written(tmp_path, make_history(900))
    loss = curves.loss_curve(history, None)
    assert count(loss, curves.TRAINING) > 500
    assert count(loss, curves.VALIDATION) > 300
    assert (
        count(curves.loss_curve(history, history.kept(None)), curves.VALIDATION) > count(loss, curves.VALIDATION) + 100
    )
    assert count(curves.rate_curve(history), curves.TRAINING) > 500
    dice = curves.dice_curve(history)
    assert min(count(dice, curves.colour(0)), count(dice, curves.colour(1))) > 300
    assert pixels(dice).shape[:2] == (curves.HEIGHT_PX, curves.WIDTH_PX)


def test_curves_are_the_same_bytes_and_hold_no_text(tmp_path):
    history = written(tmp_path, make_history(900))
    for draw in (curves.rate_curve, curves.dice_curve, lambda h: curves.loss_curve(h, h.kept(None))):
        png = draw(history)
        assert png == draw(history)
        assert not re.search(rb"tEXt|iTXt|zTXt|tIME|Software|matplotlib", png)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["step\n", "step\ttrain_loss\n1\t0.5\n", "step\tdice_a\tvalidation_loss\n1\t1\t0\n"])
def test_short_histories_can_be_drawn(tmp_path, text):
    history = written(tmp_path, text)
    for png in (curves.loss_curve(history, history.kept(None)), curves.rate_curve(history), curves.dice_curve(history)):
        assert pixels(png).shape == (curves.HEIGHT_PX, curves.WIDTH_PX, 3)

import numpy as np
import pytest
from made_results import make_ingested, make_model, make_predicted, make_weighed, opened_run, settings
from read_page import decoded, read_page

from unet_pipeline.config.result_sections import Report as Options
from unet_pipeline.config.sections import IGNORE, Normalise
from unet_pipeline.images import pictures
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.model.normalise import from_statistics
from unet_pipeline.report import differences
from unet_pipeline.report.differences import Verdict
from unet_pipeline.report.panels import MEANINGS, Panels, views
from unet_pipeline.report.render import data_uri, templates
from unet_pipeline.report.results import ModelResult, open_result
from unet_pipeline.report.views import View

OPTIONS = Options(panel_px=96, planes=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return opened_run(tmp_path_factory.mktemp("panels"))


def drawn(panel):
    return read_page(templates().get_template("blocks.html").module.panel(panel))


def shown(result, view):
    """Title, picture and caption of each panel."""
    panels = []
    for panel in Panels(result, view):
        caption = " ".join(drawn(panel).one("figcaption").text.split())
        panels.append((panel.title, decoded(data_uri(panel.png)), caption))
    return panels


def without_bar(rgb, shape):
    """The picture at its own size, and where no scale bar covers it."""
    factor = rgb.shape[0] // shape[0]
    small = rgb[factor // 2 :: factor, factor // 2 :: factor][: shape[0], : shape[1]]
    free = np.ones(shape, bool)
    free[-shape[0] // 4 :, -shape[1] // 2 :] = False
    return small, free


@pytest.mark.slow
def test_each_stack_shows_what_it_has(run):
    titles = {name: [t for t, _, _ in shown(one, views(one, OPTIONS)[0])] for name, one in run.items()}
    assert titles["train_a"] == ["Raw", "Boundary weight", "Reference labels"]
    assert titles["unseen"] == ["Raw", "Probability", "Labels", "Reference", "Difference"]
    assert titles["new"] == ["Raw", "Probability", "Labels"]


def test_views_fit_the_options(run):
    for result in run.values():
        (view,) = views(result, OPTIONS)
        _, height, width = result.stack.grid.shape
        assert view.shape == (min(96, height), min(96, width))
    many = views(run["unseen"], Options(panel_px=64, planes=16))
    assert [view.plane for view in many] == [0, 1]


def test_raw_has_the_scale_of_the_whole_stack(run):
    result = run["unseen"]
    view = View(1, slice(10, 60), slice(20, 90))
    (_, rgb, _), *_ = shown(result, view)
    stack = result.stack
    shades = from_statistics(Normalise("percentile", 0.3, 99.8), stack.ingested.statistics, stack.dtype)
    values = shades(stack.image.read(1, view.rows, view.columns))[0]
    expected = np.rint(np.clip(values, 0, 1) * 255)
    small, free = without_bar(rgb, view.shape)
    np.testing.assert_array_equal(small[..., 0][free], expected[free])


def test_probability_is_that_of_the_foreground(run):
    result, view = run["new"], View(0, slice(0, 64), slice(0, 64))
    _, (_, rgb, caption), _ = shown(result, view)
    stored = result.plan.probabilities().read(0, view.rows, view.columns)
    expected = pictures.as_scale(1 - stored[0] / np.float32(255), "viridis")
    small, free = without_bar(rgb, view.shape)
    np.testing.assert_array_equal(small[free], expected[free])
    assert "of cell" in caption


def test_weights_are_those_of_weigh(run):
    result, view = run["train_a"], View(0, slice(0, 96), slice(30, 126))
    _, (_, rgb, caption), _ = shown(result, view)
    term = open_array(result.folder / "weights.zarr", "boundary").read_label(0, view.rows, view.columns)
    expected = pictures.as_scale(term / result.weigh.largest_boundary_term, "magma")
    small, free = without_bar(rgb, view.shape)
    np.testing.assert_array_equal(small[free], expected[free])
    assert f"{result.weigh.largest_boundary_term:.1f}" in caption


def test_labels_have_the_colours_of_their_ids(run):
    result, view = run["unseen"], View(0, slice(0, 100), slice(50, 150))
    _, _, (_, rgb, caption), *_ = shown(result, view)
    ids = result.plan.labels("instances").read_label(0, view.rows, view.columns)
    small, free = without_bar(rgb, view.shape)
    np.testing.assert_array_equal(small[free], pictures.as_instances(ids)[free])
    assert caption == f"Labels {len(set(ids.ravel()) - {0})} found in view."


def test_the_reference_has_the_colours_of_what_was_found_for_it(run):
    result, view = run["unseen"], View(0, slice(0, 100), slice(50, 150))
    panels = Panels(result, view)
    *_, (_, rgb, _), _ = shown(result, view)
    small, free = without_bar(rgb, view.shape)
    pairs = differences.partners(panels.reference, panels.found)
    assert pairs
    for one in set(panels.reference.ravel()) - {0}:
        colour = pictures.as_instances(np.array([[pairs[one]]]))[0, 0] if one in pairs else pictures.UNMATCHED
        assert (small[free & (panels.reference == one)] == colour).all()


def test_the_difference_counts_as_numpy_does(run):
    result = run["unseen"]
    (view,) = views(result, OPTIONS)
    *_, (_, rgb, caption) = shown(result, view)
    reference = result.stack.reference("instances").read_label(view.plane, view.rows, view.columns)
    found = result.plan.labels("instances").read_label(view.plane, view.rows, view.columns)
    missed, spurious = (reference > 0) & (found == 0), (reference == 0) & (found > 0)
    small, free = without_bar(rgb, view.shape)
    for one, expected in ((Verdict.MISSED, missed), (Verdict.SPURIOUS, spurious)):
        np.testing.assert_array_equal((small == differences.COLOURS[one]).all(axis=2)[free], expected[free])
        assert f"{MEANINGS[one]} {expected.mean():.1%}" in caption
    agreed, other = ((small == differences.COLOURS[one]).all(axis=2) for one in (Verdict.AGREED, Verdict.OTHER))
    np.testing.assert_array_equal((agreed | other)[free], ((reference > 0) & (found > 0))[free])
    assert missed.any()
    assert agreed.any()


def test_pixels_that_objects_grew_into_are_of_their_object(run):
    result, view = run["unseen"], View(0, slice(0, 150), slice(0, 213))
    panels = Panels(result, view)
    network = result.plan.labels("classes").read_label(0, view.rows, view.columns)
    grown = (network == 0) & (panels.found > 0) & (panels.reference > 0)
    assert grown.sum() > 50
    partner = differences.translated(panels.reference, differences.partners(panels.reference, panels.found))
    np.testing.assert_array_equal((panels.verdict == Verdict.AGREED)[grown], (partner == panels.found)[grown])


def test_pictures_are_described(run):
    for result in run.values():
        for panel in Panels(result, views(result, OPTIONS)[0]):
            image = drawn(panel).one("img").attributes
            assert result.name in image["alt"]
            assert "scale bar" in image["alt"]
            assert decoded(image["src"]).shape[:2] == (int(image["height"]), int(image["width"]))


def test_scale_bars_are_in_micrometres_where_they_can_be(run):
    for name, unit in (("unseen", "µm"), ("new", "px")):
        panel = next(iter(Panels(run[name], views(run[name], OPTIONS)[0])))
        assert drawn(panel).one("img").attributes["alt"].endswith(f" {unit}")


@pytest.fixture(scope="module")
def classes_run(tmp_path_factory):
    """Three classes, three channels, some pixels not annotated."""
    folder = tmp_path_factory.mktemp("classes")
    names = ["background", "nerve", "glia"]
    labels = {"kind": "classes", "classes": names, "values": {0: "background", 1: "nerve", 2: "glia"}, "ignore": 9}
    config = settings(labels=labels)
    model = ModelResult.open(make_model(folder / "model", config, channels=3))
    record = make_weighed(make_ingested(folder, "c", (1, 96, 112), config, channels=3, unknown=9), config)
    return open_result(make_predicted(record, config), model)


@pytest.mark.slow
def test_classes_have_a_panel_and_names(classes_run):
    (view,) = views(classes_run, OPTIONS)
    panels = {title: (rgb, caption) for title, rgb, caption in shown(classes_run, view)}
    result = ["Probability", "Classes", "Labels"]
    assert list(panels) == ["Raw", "Boundary weight", *result, "Reference classes", "Reference", "Difference"]
    rgb, caption = panels["Classes"]
    assert all(name in caption for name in ("background", "nerve", "glia"))
    stored = classes_run.plan.labels("classes").read_label(0, view.rows, view.columns)
    small, free = without_bar(rgb, view.shape)
    for index in np.unique(stored):
        assert (small[free & (stored == index)] == pictures.class_colour(int(index))).all()
    assert panels["Probability"][1].startswith("Probability of nerve or glia")
    assert "Red, green and blue as they are" in panels["Raw"][1]
    values = classes_run.stack.image.read(0, view.rows, view.columns)
    small, free = without_bar(panels["Raw"][0], view.shape)
    np.testing.assert_array_equal(small[free], np.moveaxis(values, 0, -1)[free])


@pytest.mark.slow
def test_true_classes_have_the_same_colours(classes_run):
    view = View(0, slice(0, 96), slice(0, 112))
    panels = {title: (rgb, caption) for title, rgb, caption in shown(classes_run, view)}
    rgb, caption = panels["Reference classes"]
    assert caption.endswith("not annotated")
    truth = classes_run.stack.reference("classes").read_label(0, view.rows, view.columns)
    small, free = without_bar(rgb, view.shape)
    for index in (0, 1, 2):
        assert (small[free & (truth == index)] == pictures.class_colour(index)).all()
    assert (small[free & (truth == IGNORE)] == pictures.UNKNOWN).all()


@pytest.mark.slow
def test_unannotated_pixels_are_no_errors(classes_run):
    view = View(0, slice(0, 96), slice(0, 112))
    verdict = Panels(classes_run, view).verdict
    unknown = classes_run.stack.reference("classes").read_label(0, view.rows, view.columns) == IGNORE
    assert unknown.any()
    np.testing.assert_array_equal(verdict == Verdict.UNKNOWN, unknown)
    *_, (_, _, caption) = shown(classes_run, view)
    assert "not annotated" in caption


@pytest.mark.slow
def test_pixels_of_another_class_are_told(classes_run):
    view = View(0, slice(0, 96), slice(0, 112))
    truth = classes_run.stack.reference("classes").read_label(0, view.rows, view.columns)
    given = classes_run.plan.labels("classes").read_label(0, view.rows, view.columns)
    wrong = (truth > 0) & (given > 0) & (truth != given) & (truth != IGNORE)
    found = classes_run.plan.labels("instances").read_label(0, view.rows, view.columns)
    assert (wrong & (found > 0)).any()
    *_, (_, _, caption) = shown(classes_run, view)
    assert caption.endswith("Another class counts as joined or split.")
    verdict = Panels(classes_run, view).verdict
    assert (verdict[wrong & (found > 0)] == Verdict.OTHER).all()

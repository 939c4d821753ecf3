"""A project that is taken up again: copied, moved, with something deleted, edited or added, or with a newer version.

What Snakemake decides is tested on faked stages, with files large enough that its own limit for checksums (1 MB) would
not do; what the stages do is tested on the real ones.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from faked_project import AFTER_PLAN, FIRST, TABLE, project
from real_project import TABLE as REAL_TABLE
from real_project import TINY, write
from same_tree import differing, tree
from workspace import Workspace, fake_checkout

pytestmark = pytest.mark.slow

LARGE = 1_200_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project of large images whose workflow has run; stages are faked."""
    base = tmp_path_factory.mktemp("months later")
    space = project(base / "my project", fake_checkout(base / "check out"))
    for file in (space.folder / "my images").iterdir():
        file.write_text(file.name * (LARGE // len(file.name)))
    ran = space.run()
    assert ran.code == 0, ran.text
    return space


@pytest.fixture
def done(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of that project with all times, to be changed."""
    return copied(finished, tmp_path / "my copy", keep)


def keep(files: list[Path]) -> None:
    """As `cp -a` and `rsync -a` leave the times."""


def equal(files: list[Path]) -> None:
    """As archives with coarse times, and some object stores, leave them."""
    for file in files:
        os.utime(file, (1_700_000_000, 1_700_000_000))


def shuffled(files: list[Path]) -> None:
    """As `cp -r`, `git clone` and parallel copies leave them: in any order."""
    order, now = random.Random(4), time.time()
    for file in files:
        moment = now - order.uniform(0, 1000)
        os.utime(file, (moment, moment))


def reverse(files: list[Path]) -> None:
    """The worst case: sources newest, results oldest."""
    for file in files:
        moment = 3_000_000_000 - file.stat().st_mtime
        os.utime(file, (moment, moment))


def copied(space: Workspace, to: Path, times: Callable[[list[Path]], None], metadata: bool = True) -> Workspace:
    """Copy a project, with or without Snakemake's own folder, and set the times of its files."""
    left_out = None if metadata else shutil.ignore_patterns(".snakemake")
    shutil.copytree(space.folder, to, ignore=left_out)
    times([path for path in sorted(to.rglob("*")) if path.is_file() and ".snakemake" not in path.parts])
    copy = Workspace(to, space.checkout)
    copy.config = space.config
    return copy


@pytest.mark.parametrize("times", [keep, equal, shuffled, reverse])
def test_a_copy_with_all_its_files_runs_nothing_whatever_their_times(
    finished: Workspace, tmp_path: Path, times: Callable[[list[Path]], None]
) -> None:
    copy = copied(finished, tmp_path / "elsewhere" / "copy", times)
    assert copy.would_run() == set()
    (copy.folder / "my images" / "c.tif").write_text("another picture")
    assert copy.would_run() == {job for job in FIRST if " c.1" in job} | {"report"}


def test_without_the_profile_times_would_count(finished: Workspace, tmp_path: Path) -> None:
    """The test above holds because of the key in profiles/default, not because files are small."""
    copy = copied(finished, tmp_path / "copy", reverse)
    assert "ingest c.1" in copy.would_run("--max-checksum-file-size", "1000000")


def test_a_copy_without_snakemakes_folder_is_made_good_by_one_command(finished: Workspace, tmp_path: Path) -> None:
    copy = copied(finished, tmp_path / "copy", reverse, metadata=False)
    assert copy.would_run() == FIRST
    before = {path: path.read_bytes() for path in (copy.folder / "results").rglob("*.json")}
    assert copy.run("--touch", "--forceall").code == 0
    assert {path: path.read_bytes() for path in (copy.folder / "results").rglob("*.json")} == before
    assert copy.would_run() == set()
    assert copy.would_run(train={"steps": 901}) == AFTER_PLAN | {"train"}


def test_without_snakemakes_folder_a_changed_key_goes_unseen_until_then(finished: Workspace, tmp_path: Path) -> None:
    copy = copied(finished, tmp_path / "copy", keep, metadata=False)
    assert copy.would_run() == set()
    assert copy.would_run(train={"steps": 901}) == set(), "if this is seen now, docs/reproducibility.md can say so"
    assert copy.run("--touch", "--forceall").code == 0
    assert copy.would_run(train={"steps": 901}) == AFTER_PLAN | {"train"}


def test_a_moved_checkout_uses_the_results_again(done: Workspace, tmp_path: Path) -> None:
    moved = tmp_path / "another place" / "for the code"
    shutil.copytree(done.checkout, moved)
    assert Workspace(done.folder, moved).would_run() == set()


def test_results_may_lie_on_another_disk(done: Workspace, tmp_path: Path) -> None:
    (tmp_path / "other disk").mkdir()
    (done.folder / "results").rename(tmp_path / "other disk" / "renamed")
    (done.folder / "results").symlink_to(tmp_path / "other disk" / "renamed")
    assert done.would_run() == set()
    assert done.run(report={"panel_px": 300}).jobs == {"report"}
    assert done.would_run(report={"panel_px": 300}) == set()


def test_a_working_directory_elsewhere_takes_images_by_absolute_path(finished: Workspace, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "other disk", finished.checkout)
    space.table(*(row.replace("my images", str(finished.folder / "my images")) for row in TABLE))
    ran = space.run()
    assert ran.code == 0, ran.text
    assert ran.jobs == FIRST
    assert {path.name for path in space.folder.iterdir()} == {"results", ".snakemake", "config.yaml", "stacks.tsv"}
    assert space.would_run() == set()


SCORED = {"stitch c.1", "measure c.1", "evaluate c.1", "report"}
PREDICTED = {"predict c.1 0", "predict c.1 1", "predict c.1 2"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("results/c.1/ingest.json", {"ingest c.1", "tile c.1", *PREDICTED, *SCORED}),
        ("results/c.1/tiles.json", {"tile c.1", *PREDICTED, *SCORED}),
        ("results/c.1/regions/1.json", {"predict c.1 1", *SCORED}),
        ("results/a/weigh.json", {"weigh a", "train", *AFTER_PLAN}),
        ("results/model/weights.safetensors", set()),
        ("results/c.1/stitch.json", SCORED),
        ("results/c.1/metrics.json", {"evaluate c.1", "report"}),
        ("results/report.html", {"report"}),
    ],
)
def test_a_deleted_record_is_made_again_when_it_is_needed(done: Workspace, name: str, expected: set[str]) -> None:
    (done.folder / name).unlink()
    assert done.would_run() == expected


def test_a_deleted_model_is_trained_again_for_a_new_stack(done: Workspace) -> None:
    (done.folder / "results" / "model" / "weights.safetensors").unlink()
    done.table(*TABLE, "e | my images/e.tif | | predict | |")
    new = {"ingest e", "tile e", "predict e 0", "stitch e", "measure e"}
    assert done.would_run() == new | AFTER_PLAN | {"train"}


def test_an_older_file_in_place_of_an_image_goes_unseen(done: Workspace) -> None:
    """Snakemake looks at the content of newer files only; `differs` reads all of them."""
    image = done.folder / "my images" / "c.tif"
    image.write_text("another picture" * (LARGE // 15))
    os.utime(image, (1_000_000_000, 1_000_000_000))
    assert done.would_run() == set()


@pytest.fixture
def real_copy(finished_project: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the real project; not even its times are kept."""
    return copied(finished_project, tmp_path / "moved here", shuffled)


def test_new_row_and_edited_image_leave_everything_else_as_it_was(real_copy: Workspace) -> None:
    results, images = real_copy.folder / "results", real_copy.folder / "my images"
    before = tree(results)
    plane = images / "new" / "plane 0.tif"
    grey = tifffile.imread(plane)
    grey[5, 7] += 1
    tifffile.imwrite(plane, grey)
    write(images, "march", (50, 70), 1, 8)
    real_copy.table(*REAL_TABLE, "march | my images/march.tif | | predict |")
    ran = real_copy.run()
    assert ran.code == 0, ran.text
    stages = ("ingest", "tile", "stitch", "measure")
    jobs = {f"{stage} {name}" for stage in stages for name in ("new", "march")}
    assert ran.jobs == jobs | {"predict new 0", "predict march 0", "report"}
    changed = {name.split("/")[0] for name in differing(before, tree(results))}
    assert changed == {"new", "march", "objects.csv", "report.html", "report.json", "report.sha256"}
    assert real_copy.would_run() == set()


@pytest.mark.parametrize(
    ("store", "trigger"),
    [
        ("new/image.ome.zarr", "new/regions/*"),
        ("new/segmentation.ome.zarr", "new/stitch.json"),
        ("new/segmentation.ome.zarr/0/c", "new/stitch.json"),
        ("learn/weights.zarr", "model/weights.safetensors"),
        ("learn/image.ome.zarr", "learn/weigh.json"),
    ],
)
def test_a_deleted_store_ends_in_one_message_and_its_command_repairs(
    real_copy: Workspace, store: str, trigger: str
) -> None:
    results = real_copy.folder / "results"
    before = tree(results)
    shutil.rmtree(results / store)
    for path in results.glob(trigger):  # with the journals of finished shards, which are hidden files
        path.unlink()
    wanted = f"results/{trigger.replace('*', '0.json')}"
    ran = real_copy.run(wanted)
    assert ran.code == 1
    assert "Traceback" not in ran.text, ran.text
    (message,) = set(re.findall(r"error: .*\n(?:  .*\n)+", ran.text))
    assert f"results/{store}" in message
    repair = re.findall(r"`--forcerun ([^`]+)`", message)
    for _ in range(3):  # a volume of several regions is repaired one region after the other
        ran = real_copy.run(wanted, "--forcerun", *repair)
        repair = re.findall(r"`--forcerun ([^`]+)`", ran.text)
        if ran.code == 0:
            break
    assert ran.code == 0, ran.text
    again = tree(results)
    assert not [name for name in differing(before, again) if name in again], "what is made again has the same bytes"


def test_a_zarr_image_used_in_place_moves_with_its_project(finished_project: Workspace, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "before")
    space.config = {name: TINY[name] for name in ("store", "tile", "report", "compute")}
    space.config |= {"model": {"folder": "model"}}
    shutil.copytree(finished_project.folder / "results" / "model", space.folder / "model")
    shutil.copytree(
        finished_project.folder / "results" / "val" / "image.ome.zarr", space.folder / "data" / "v.ome.zarr"
    )
    space.table("stack | image", "v | data/v.ome.zarr")
    ran = space.run("results/v/stitch.json")
    assert ran.code == 0, ran.text
    moved = Workspace(space.folder.rename(tmp_path / "after it was moved"))
    moved.config = space.config
    assert str(tmp_path) not in (moved.folder / "results" / "v" / "ingest.json").read_text()
    before = (moved.folder / "results" / "v" / "regions" / "0.json").read_bytes()
    (moved.folder / "results" / "v" / "regions" / "0.json").unlink()
    ran = moved.run("results/v/regions/0.json")
    assert ran.code == 0, ran.text
    assert ran.jobs == {"predict v 0"}
    assert (moved.folder / "results" / "v" / "regions" / "0.json").read_bytes() == before

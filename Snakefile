# From raw stacks to stitched OME-Zarr volumes. Try `snakemake --cores 2 --dry-run`, then leave out --dry-run.

from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/common.smk"


configfile: readable(str(HERE / "config.yaml") if IMPORTED else nearby("config.yaml"))


GRAPH = checked(config)
SETTINGS = GRAPH.config
CONTAINER = container_image()

prepare_jobs()
share_gpus()
tell_failures_briefly()


onstart:
    begin()


if IMPORTED:
    begin_with_importer()


report: "workflow/report/workflow.rst"


if CONTAINER:

    container: CONTAINER


wildcard_constraints:
    stack="|".join(map(re.escape, GRAPH.stacks)),
    region=r"\d+",
    fold=r"\d+",


include: "workflow/rules/demo.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/weigh.smk"


if not SETTINGS.model.folder:

    include: "workflow/rules/train.smk"


if GRAPH.folds:

    include: "workflow/rules/ensemble.smk"


if GRAPH.calibrated:

    include: "workflow/rules/calibrate.smk"


include: "workflow/rules/tile.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/stitch.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/prove.smk"


rule all:
    """The page, and the records of all steps: Snakemake would not miss one that was lost between two others."""
    default_target: True
    input:
        "results/report.html",
        GRAPH.records,
        expand(GRAPH.label_tiffs, stack=GRAPH.predicted),
        expand(GRAPH.object_tables, stack=GRAPH.measured),
    localrule: True


stop_if_left_over()  # last, because outputs are removed soon after

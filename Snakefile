# From raw stacks to stitched OME-Zarr volumes. Try `snakemake --cores 2 --dry-run`, then leave out --dry-run.

from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/common.smk"


configfile: nearby("config.yaml")


SETTINGS, STACKS = checked(config)

check_conda()
shell.prefix(job_prefix())


onstart:
    alone()
    check_cluster()


report: "workflow/report/workflow.rst"


wildcard_constraints:
    stack="|".join(map(re.escape, STACKS)),
    region=r"\d+",
    fold=r"\d+",


include: "workflow/rules/demo.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/weigh.smk"


if not SETTINGS.model.folder:

    include: "workflow/rules/train.smk"


if folds():

    include: "workflow/rules/ensemble.smk"


include: "workflow/rules/tile.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/stitch.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/prove.smk"


rule all:
    """The page, and for each predicted stack its volume and its scores."""
    default_target: True
    input:
        "results/report.html",
        expand(["results/{stack}/stitch.json", *label_tiffs()], stack=predicted()),
        expand("results/{stack}/metrics.json", stack=scored()),
    localrule: True


stop_if_left_over()  # last, because outputs are removed soon after

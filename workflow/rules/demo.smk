rule demo:
    """Make the stacks of touching cells that the default table names; seeded, with ground truth."""
    output:
        named(
            [
                "demo/train_a.tif",
                "demo/train_a_labels.tif",
                "demo/train_b.tif",
                "demo/train_b_labels.tif",
                "demo/val.tif",
                "demo/val_labels.tif",
                "demo/unseen.tif",
                "demo/unseen_labels.tif",
                "demo/small.tif",
                "demo/small_labels.tif",
                "demo/new.tif",
                "demo/new_labels.tif",
            ]
        ),
    log:
        "results/logs/demo.log",
    benchmark:
        "results/benchmarks/demo.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        folder=folder_of_output,
    shell:
        r"""
        python -m unet_pipeline demo \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """

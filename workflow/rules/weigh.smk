rule weigh:
    """Make the training targets and the boundary weight map of a labelled stack (`weights.zarr` beside the record)."""
    input:
        "results/{stack}/ingest.json",
    output:
        "results/{stack}/weigh.json",
    log:
        "results/logs/weigh/{stack}.log",
    benchmark:
        "results/benchmarks/weigh/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1  # a large stack gains from more: --set-threads weigh=8
    params:
        version=VERSION,
        config=section("weigh"),
    shell:
        r"""
        python -m unet_pipeline weigh \
            --ingest {input:q} \
            --config {params.config:q} \
            --threads {threads} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

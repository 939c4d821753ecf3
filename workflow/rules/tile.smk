rule tile:
    """Plan a stack: regions, shards and tiles; and create the empty store that prediction jobs fill."""
    input:
        ingest="results/{stack}/ingest.json",
        model=plan_model_files,
    output:
        "results/{stack}/tiles.json",
    log:
        "results/logs/tile/{stack}.log",
    benchmark:
        "results/benchmarks/tile/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        config=section("labels", "store", "model", "tile", "predict"),
        model=plan_model_options,
        regions=region_count,
        out_of_fold=out_of_fold_options,
    shell:
        r"""
        python -m unet_pipeline tile \
            --ingest {input.ingest:q} \
            {params.model:q} \
            --regions {params.regions} \
            {params.out_of_fold:q} \
            --config {params.config:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

rule tile:
    """Plan a stack: regions, shards and tiles; and create the empty store that prediction jobs fill."""
    input:
        ingest="results/{stack}/ingest.json",
        model=plan_model,
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
        config=section("tile"),
        model=lambda wildcards, input: ["--model", folder_of_model(wildcards, input)] if input.model else [],
        regions=of_stack(GRAPH.region_count),
        out_of_fold=of_stack(GRAPH.out_of_fold_options),
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

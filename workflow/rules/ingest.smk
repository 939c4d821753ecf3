rule ingest:
    """Read a stack of any format into OME-Zarr, check it and its labels, and measure it.

    The store `image.ome.zarr` lies beside the record; a stack that is Zarr already is used in place.
    """
    input:
        sources,
    output:
        "results/{stack}/ingest.json",
    log:
        "results/logs/ingest/{stack}.log",
    benchmark:
        "results/benchmarks/ingest/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        # No parameter: another row of the table is no reason to read this stack again.
        table="" if SETTINGS.model.folder else GRAPH.table,
    params:
        version=VERSION,
        config=section("ingest"),
        source=of_stack(GRAPH.source_options),
    shell:
        r"""
        python -m unet_pipeline ingest \
            --stack {wildcards.stack:q} \
            {params.source:q} \
            --table={resources.table:q} \
            --config {params.config:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

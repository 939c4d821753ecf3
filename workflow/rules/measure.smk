rule measure:
    """Write the objects of a stitched stack as a table."""
    input:
        "results/{stack}/stitch.json",
    output:
        record="results/{stack}/measure.json",
        tables=GRAPH.object_tables,
    log:
        "results/logs/measure/{stack}.log",
    benchmark:
        "results/benchmarks/measure/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        config=section("measure"),
    shell:
        r"""
        python -m unet_pipeline measure \
            --stitch {input:q} \
            --config {params.config:q} \
            --output {output.record:q} \
            2>&1 | tee {log:q}
        """

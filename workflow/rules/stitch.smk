rule stitch:
    """Prove that all regions together cover the stack once, then make its objects, pyramids and TIFF files."""
    input:
        tiles="results/{stack}/tiles.json",
        regions=of_stack(GRAPH.region_records),
        model=model_files,
        calibration=calibration,
    output:
        record="results/{stack}/stitch.json",
        tiffs=GRAPH.label_tiffs,
    log:
        "results/logs/stitch/{stack}.log",
    benchmark:
        "results/benchmarks/stitch/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        config=section("stitch"),
        model=folder_of_model,
        calibration=lambda wildcards, input: ["--calibration", *input.calibration] if input.calibration else [],
    shell:
        r"""
        python -m unet_pipeline stitch \
            --tiles {input.tiles:q} \
            --regions {input.regions:q} \
            --model {params.model:q} \
            {params.calibration:q} \
            --config {params.config:q} \
            --output {output.record:q} \
            2>&1 | tee {log:q}
        """

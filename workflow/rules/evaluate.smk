rule evaluate:
    """Score a stitched stack against its labels."""
    input:
        "results/{stack}/stitch.json",
    output:
        confusion="results/{stack}/confusion.csv",
        metrics=report(
            "results/{stack}/metrics.json",
            caption="../report/metrics.rst",
            category="Scores",
            labels={"stack": "{stack}"},
        ),
    log:
        "results/logs/evaluate/{stack}.log",
    benchmark:
        "results/benchmarks/evaluate/{stack}.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        config=section("evaluate"),
    shell:
        r"""
        python -m unet_pipeline evaluate \
            --stitch {input:q} \
            --config {params.config:q} \
            --output {output.metrics:q} \
            2>&1 | tee {log:q}
        """

rule report:
    """Put the flow, the curves, the scores and pictures of every stack on one page, and all objects into one table."""
    input:
        stacks=GRAPH.shown_stacks,
        model=model_files,
        more=GRAPH.shown_files,
    output:
        page=report("results/report.html", caption="../report/page.rst", category="Page", labels={"page": "all stacks"}),
        record="results/report.json",
        tables=GRAPH.joined_tables,
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/pipeline.yaml"
    params:
        version=VERSION,
        config=section("report"),
        model=folder_of_model,
    shell:
        r"""
        python -m unet_pipeline report \
            --model {params.model:q} \
            --stacks {input.stacks:q} \
            --config {params.config:q} \
            --output {output.page:q} \
            2>&1 | tee {log:q}
        """

rule ensemble:
    """Make one model of those of a cross-validation: it answers with the mean of their probabilities."""
    input:
        cards=expand("results/folds/{fold}/model.json", fold=GRAPH.folds),
        weights=expand("results/folds/{fold}/weights.safetensors", fold=GRAPH.folds),
    output:
        "results/model/model.json",
        "results/model/weights.safetensors",
    log:
        "results/logs/ensemble.log",
    benchmark:
        "results/benchmarks/ensemble.tsv"
    conda:
        "../../envs/torch.yaml"
    params:
        version=VERSION,
        models=lambda wildcards, input: [str(Path(card).parent) for card in input.cards],
        folder=folder_of_output,
    shell:
        r"""
        python -m unet_pipeline ensemble \
            --models {params.models:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """

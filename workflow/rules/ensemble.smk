rule ensemble:
    """Make one model of those of a cross-validation: it answers with the mean of their probabilities."""
    input:
        expand("results/folds/{fold}/model.json", fold=folds()),
        expand("results/folds/{fold}/weights.safetensors", fold=folds()),
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
        models=expand("results/folds/{fold}", fold=folds()),
        folder=folder_of_output,
    shell:
        r"""
        python -m unet_pipeline ensemble \
            --models {params.models:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """

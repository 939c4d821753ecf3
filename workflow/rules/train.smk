rule train:
    """Train one network on all stacks with role train; those with role val say which weights are kept.

    In a cross-validation, one for each fold of their planes, on the planes of the other folds. Checkpoints lie in the
    model folder, so an interrupted training goes on where it was.
    """
    input:
        train=expand("results/{stack}/weigh.json", stack=GRAPH.with_role("train")),
        validate=expand("results/{stack}/weigh.json", stack=GRAPH.with_role("val")),
        start=named(GRAPH.start_files),
    output:
        of_fold("results/model/model.json", "results/folds/{fold}/model.json"),
        of_fold("results/model/weights.safetensors", "results/folds/{fold}/weights.safetensors"),
        of_fold("results/model/history.tsv", "results/folds/{fold}/history.tsv"),
    log:
        of_fold("results/logs/train.log", "results/logs/train/{fold}.log"),
    benchmark:
        of_fold("results/benchmarks/train.tsv", "results/benchmarks/train/{fold}.tsv")
    conda:
        "../../envs/torch.yaml"
    threads: SETTINGS.compute.threads * SETTINGS.compute.processes
    resources:
        gpu=gpus(SETTINGS.compute.device) * SETTINGS.compute.processes,
        torch_threads=SETTINGS.compute.threads,
        torch_device=SETTINGS.compute.device,
        torch_processes=SETTINGS.compute.processes,
        torch_checkpoint_minutes=str(SETTINGS.compute.checkpoint_minutes),
        torch_watch=GRAPH.watched,
    params:
        version=VERSION,
        config=section("train"),
        folder=folder_of_output,
        validate=lambda wildcards, input: ["--validate", *input.validate] if input.validate else [],
        fold=lambda wildcards: ["--fold", wildcards.fold] if GRAPH.folds else [],
    shell:
        r"""
        python -m unet_pipeline train \
            --train {input.train:q} \
            {params.validate:q} \
            {params.fold:q} \
            --config {params.config:q} \
            --threads {resources.torch_threads} \
            --processes {resources.torch_processes} \
            --checkpoint-minutes {resources.torch_checkpoint_minutes:q} \
            --device {resources.torch_device:q} \
            --watch {resources.torch_watch:q} \
            --output {params.folder:q} \
            2>&1 | tee {log:q}
        """

rule calibrate:
    """Choose how objects are made of the network's probabilities, by the score of the planes that validated it."""
    input:
        model=model_files,
        stacks=expand("results/{stack}/ingest.json", stack=GRAPH.calibrated),
    output:
        "results/model/calibrate.json",
    log:
        "results/logs/calibrate.log",
    benchmark:
        "results/benchmarks/calibrate.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: SETTINGS.compute.threads
    resources:
        gpu=gpus(SETTINGS.compute.device),
        torch_threads=SETTINGS.compute.threads,
        torch_device=SETTINGS.compute.device,
    params:
        version=VERSION,
        config=section("calibrate"),
        model=folder_of_model,
    shell:
        r"""
        python -m unet_pipeline calibrate \
            --model {params.model:q} \
            --stacks {input.stacks:q} \
            --config {params.config:q} \
            --threads {resources.torch_threads} \
            --device {resources.torch_device:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

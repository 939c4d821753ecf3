rule prove:
    """Verify on this model and stack that tiles leave no seam; run it with `snakemake --cores 2 results/NAME/prove.json`."""
    input:
        ingest="results/{stack}/ingest.json",
        model=model_files,
    output:
        "results/{stack}/prove.json",
    log:
        "results/logs/prove/{stack}.log",
    benchmark:
        "results/benchmarks/prove/{stack}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: SETTINGS.compute.threads
    resources:
        gpu=gpus(SETTINGS.compute.device),
        torch_threads=SETTINGS.compute.threads,
        torch_device=SETTINGS.compute.device,
    params:
        version=VERSION,
        config=section("prove"),
        model=folder_of_model,
    shell:
        r"""
        python -m unet_pipeline prove \
            --model {params.model:q} \
            --ingest {input.ingest:q} \
            --config {params.config:q} \
            --threads {resources.torch_threads} \
            --device {resources.torch_device:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

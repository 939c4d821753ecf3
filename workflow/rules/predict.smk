rule predict:
    """Predict one region of a stack: whole shards of its store, and the record of their checksums."""
    input:
        tiles="results/{stack}/tiles.json",
        model=model_files,
    output:
        "results/{stack}/regions/{region}.json",
    log:
        "results/logs/predict/{stack}/{region}.log",
    benchmark:
        "results/benchmarks/predict/{stack}/{region}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: SETTINGS.compute.threads
    resources:
        gpu=gpus(SETTINGS.compute.device),
        torch_threads=SETTINGS.compute.threads,
        torch_device=SETTINGS.compute.device,
        torch_io_threads=SETTINGS.compute.io_threads,
        torch_compile=str(SETTINGS.compute.compile),
    params:
        version=VERSION,
        config=section("predict"),
        model=folder_of_model,
    shell:
        r"""
        python -m unet_pipeline predict \
            --tiles {input.tiles:q} \
            --region {wildcards.region} \
            --model {params.model:q} \
            --config {params.config:q} \
            --threads {resources.torch_threads} \
            --device {resources.torch_device:q} \
            --io-threads {resources.torch_io_threads:q} \
            --compile {resources.torch_compile:q} \
            --output {output:q} \
            2>&1 | tee {log:q}
        """

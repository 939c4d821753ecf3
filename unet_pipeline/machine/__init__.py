"""The machine a job runs on: progress, threads, memory, Slurm, conda."""

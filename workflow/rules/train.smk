run_folder = f"{results}/runs/{{dataset}}/{{entry}}/seed{{seed}}"
gradient_folder = f"{results}/gradients/{{dataset}}/{{variant}}"


# Checkpoints, sample grids and TensorBoard files are next to the outputs but undeclared: Snakemake deletes the declared
# files of a failed job, and a restarted training resumes from its last checkpoint. With --wait, a training waits for
# another process that still trains the run, such as a cluster job that a killed Snakemake left running.
rule train:
    input:
        run=f"{run_folder}/run.json",
        manifest=manifest_of,
        larger=lambda w: larger_of(run_folder.format(**w)),
        vgg19=ancient(lambda w: vgg19_of(run_folder.format(**w))),
    output:
        # The result of an earlier training with other settings stays until the new one is there.
        generator=update(f"{run_folder}/generator.safetensors"),
        history=f"{run_folder}/history.csv",
        facts=update(f"{run_folder}/training.json"),
    log:
        f"{results}/logs/train/{{dataset}}.{{entry}}.seed{{seed}}.log",
    priority: lambda w: priority_of(run_folder.format(**w))
    retries: retries_of_training
    conda:
        "../../environment.yml"
    threads: lambda w: threads_per_run * processes_of(run_folder.format(**w))
    resources:
        runtime=request(jobs.training, run_folder, "runtime"),
        mem_mb=request(jobs.training, run_folder, "mem_mb"),
        gpu=request(jobs.training, run_folder, "gpu"),
        attempt=number_of_try,
    params:
        methods=methods,
        compute=compute,
        out=folder_of,
        team=lambda w: python_of(run_folder.format(**w)),
    shell:
        "exec python -m {params.team} msgunet train {params.methods} --run {input.run:q} --compute {params.compute:q}"
        " --out {params.out:q} --wait --attempt {resources.attempt}"
        " 2> >(trap '' TERM INT; exec tee {log:q} >&2)"


rule gradients:
    input:
        run=f"{gradient_folder}/run.json",
        manifest=manifest_of,
        larger=lambda w: larger_of(gradient_folder.format(**w)),
        vgg19=ancient(lambda w: vgg19_of(gradient_folder.format(**w))),
    output:
        gradients=f"{gradient_folder}/gradients.csv",
        facts=f"{gradient_folder}/training.json",
    log:
        f"{results}/logs/gradients/{{dataset}}.{{variant}}.log",
    priority: lambda w: priority_of(gradient_folder.format(**w))
    retries: retries_of_training
    conda:
        "../../environment.yml"
    threads: lambda w: threads_per_run * processes_of(gradient_folder.format(**w))
    resources:
        runtime=request(jobs.training, gradient_folder, "runtime"),
        mem_mb=request(jobs.training, gradient_folder, "mem_mb"),
        gpu=request(jobs.training, gradient_folder, "gpu"),
        attempt=number_of_try,
    params:
        methods=methods,
        compute=compute,
        out=folder_of,
        team=lambda w: python_of(gradient_folder.format(**w)),
    shell:
        "exec python -m {params.team} msgunet gradients {params.methods} --run {input.run:q} --compute {params.compute:q}"
        " --out {params.out:q} --wait --attempt {resources.attempt}"
        " 2> >(trap '' TERM INT; exec tee {log:q} >&2)"

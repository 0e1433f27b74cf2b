rule evaluate:
    input:
        run=f"{run_folder}/run.json",
        generator=f"{run_folder}/generator.safetensors",
        manifest=manifest_of,
        settings=f"{settings}/evaluation.json",
        weights=ancient(weights_of_metrics),
    output:
        metrics=f"{run_folder}/metrics.csv",
        facts=f"{run_folder}/evaluation.json",
        predictions=directory(f"{run_folder}/predictions"),
    log:
        f"{results}/logs/evaluate/{{dataset}}.{{entry}}.seed{{seed}}.log",
    priority: len(ranks)
    conda:
        "../../environment.yml"
    threads: threads_per_run + plan.suite.compute.workers
    resources:
        runtime=request(jobs.evaluation, run_folder, "runtime"),
        mem_mb=request(jobs.evaluation, run_folder, "mem_mb"),
        gpu=request(jobs.evaluation, run_folder, "gpu"),
    params:
        methods=methods,
        compute=compute,
        out=folder_of,
    shell:
        "exec python -m msgunet evaluate {params.methods} --run {input.run:q} --generator {input.generator:q}"
        " --settings {input.settings:q} --compute {params.compute:q}"
        " --jobs {threads} --out {params.out:q}"
        " 2> {log:q}"


rule ablate:
    input:
        run=f"{run_folder}/run.json",
        generator=f"{run_folder}/generator.safetensors",
        manifest=manifest_of,
    output:
        cells=f"{run_folder}/ablation.csv",
        facts=f"{run_folder}/ablation.json",
    log:
        f"{results}/logs/ablate/{{dataset}}.{{entry}}.seed{{seed}}.log",
    priority: len(ranks)
    conda:
        "../../environment.yml"
    threads: threads_per_run
    resources:
        runtime=request(jobs.evaluation, run_folder, "runtime"),
        mem_mb=request(jobs.evaluation, run_folder, "mem_mb"),
        gpu=request(jobs.evaluation, run_folder, "gpu"),
    params:
        methods=methods,
        compute=compute,
    shell:
        "exec python -m msgunet ablate {params.methods} --run {input.run:q} --generator {input.generator:q}"
        " --compute {params.compute:q} --out {output.cells:q} 2> {log:q}"

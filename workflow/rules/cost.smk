# Uses all cores, so that no other job disturbs the timings; for clusters see docs/cluster.md.
rule cost:
    input:
        settings=f"{settings}/cost.json",
    output:
        f"{results}/cost.csv",
    log:
        f"{results}/logs/cost.log",
    conda:
        "../../environment.yml"
    threads: cores
    resources:
        runtime=lambda w, attempt: jobs.cost(plan, attempt).runtime,
        mem_mb=lambda w, attempt: jobs.cost(plan, attempt).mem_mb,
        gpu=jobs.cost(plan).gpu,
    params:
        methods=methods,
        compute=compute,
    shell:
        "exec python -m msgunet cost {params.methods} --settings {input.settings:q} --compute {params.compute:q} --out {output:q}"
        " > {log:q} 2>&1"

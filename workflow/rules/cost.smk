# All cores, so that nothing runs beside the clock.
rule cost:
    input:
        settings=f"{settings}/cost.json",
    output:
        f"{results}/cost.csv",
    log:
        f"{results}/logs/cost.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores or 1
    resources:
        gpu=gpus_of,
    params:
        compute=compute,
    shell:
        "exec python -m msgunet cost --settings {input.settings:q} --compute {params.compute:q} --out {output:q}"
        " > {log:q} 2>&1"

rule prepare:
    input:
        settings="data/{prepared}/dataset.json",
        files=files_of,
    output:
        manifest="data/{prepared}/manifest.csv",
    log:
        "logs/prepare/{prepared}.log",
    wildcard_constraints:
        prepared="[a-z0-9_]+-[0-9]+x[0-9]+-[0-9a-f]{8}(-train[0-9]+x[0-9]+)?",
    conda:
        "../../environment.yml"
    # Not all cores, so that downloads and another preparation can run at the same time.
    threads: max(1, cores // 2)
    resources:
        runtime=lambda w, attempt: 60 * attempt,
        mem_mb=lambda w, attempt: 8000 * attempt,
    params:
        compute=compute,
    shell:
        "exec python -m msgunet prepare --settings {input.settings:q} --compute {params.compute:q}"
        " --threads {threads} --out data/{wildcards.prepared:q}"
        " 2> >(trap '' TERM INT; exec tee {log:q} >&2)"


# Downloads published archives (unless the suite names a folder that has them) and weights. Runs on this machine, since
# the nodes of a cluster often have no network.
localrules:
    fetch,


rule fetch:
    output:
        "data/{where}/{file}",
    log:
        "logs/fetch/{where}.{file}.log",
    wildcard_constraints:
        where="archives|weights",
        file="[^/.][^/]*",
    conda:
        "../../environment.yml"
    params:
        compute=compute,
    shell:
        "exec python -m msgunet fetch {wildcards.file:q} --compute {params.compute:q} --out data/{wildcards.where}"
        " 2> >(trap '' TERM INT; exec tee {log:q} >&2)"

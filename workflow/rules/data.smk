rule prepare:
    input:
        settings="data/{prepared}/dataset.json",
    output:
        manifest="data/{prepared}/manifest.csv",
    log:
        "logs/prepare/{prepared}.log",
    wildcard_constraints:
        prepared="[a-z0-9_]+-[0-9]+x[0-9]+-[0-9a-f]{8}",
    conda:
        "../../environment.yml"
    params:
        compute=compute,
    shell:
        "exec python -m msgunet prepare --settings {input.settings:q} --compute {params.compute:q}"
        " --out data/{wildcards.prepared:q} 2> {log:q}"


# Only where the suite does not name a file of its own (data.vgg19).
rule vgg19:
    output:
        "data/weights/vgg19-dcbb9e9d.pth",
    log:
        "logs/vgg19.log",
    conda:
        "../../environment.yml"
    shell:
        "exec python -m msgunet vgg19 --out {output:q} 2> {log:q}"

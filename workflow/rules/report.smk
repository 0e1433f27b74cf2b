measured = {
    "generators": [f"{run.folder}/generator.safetensors" for run in plan.runs],
    "metrics": [f"{run.folder}/metrics.csv" for run in plan.runs],
    "ablation": [
        f"{run.folder}/ablation.csv" for run in plan.runs if run.settings.entry in plan.suite.ablation.methods
    ],
    "gradients": [f"{run.folder}/gradients.csv" for run in plan.gradients],
    "predictions": [f"{run.folder}/predictions" for run in plan.runs],
}


# Seconds each: not worth a place in a cluster's queue.
localrules:
    tables,
    figures,
    page,


rule tables:
    input:
        settings=f"{settings}/report.json",
        metrics=measured["metrics"],
        ablation=measured["ablation"],
        cost=f"{results}/cost.csv",
    output:
        table1=f"{results}/tables/table1.csv",
        ablation=f"{results}/tables/ablation.csv",
        cost=f"{results}/tables/cost.csv",
    log:
        f"{results}/logs/tables.log",
    conda:
        "../../environment.yml"
    shell:
        "exec python -m msgunet tables --settings {input.settings:q}" f" --results {results}" " 2> {log:q}"


rule figures:
    input:
        settings=f"{settings}/report.json",
        predictions=measured["predictions"],
        gradients=measured["gradients"],
    output:
        f"{results}/figures/figures.json",
    log:
        f"{results}/logs/figures.log",
    conda:
        "../../environment.yml"
    shell:
        "exec python -m msgunet figures --settings {input.settings:q}" f" --results {results}" " 2> {log:q}"


rule page:
    input:
        settings=f"{settings}/report.json",
        tables=rules.tables.output,
        figures=rules.figures.output,
    output:
        page,
    log:
        f"{results}/logs/page.log",
    conda:
        "../../environment.yml"
    shell:
        "exec python -m msgunet page --settings {input.settings:q}" f" --results {results}" " 2> {log:q}"

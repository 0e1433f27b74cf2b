from msgunet.report.files import figure_names, table_names

measured = {
    "generators": [f"{run.folder}/generator.safetensors" for run in plan.runs],
    "metrics": [f"{run.folder}/metrics.csv" for run in plan.runs],
    "ablation": [
        f"{run.folder}/ablation.csv" for run in plan.runs if run.settings.entry in plan.suite.ablation.methods
    ],
    "gradients": [f"{run.folder}/gradients.csv" for run in plan.gradients],
    "predictions": [f"{run.folder}/predictions" for run in plan.runs],
}


# These take seconds each: not worth queueing on a cluster.
localrules:
    tables,
    figures,
    page,


tables_of_suite = table_names(plan.report)
figures_of_suite = figure_names(plan.report)


rule tables:
    input:
        settings=f"{settings}/report.json",
        metrics=measured["metrics"],
        ablation=measured["ablation"],
        # The claims name them.
        gradients=measured["gradients"],
        cost=f"{results}/cost.csv",
    output:
        numbers=expand(
            f"{results}/tables/{{name}}.csv",
            name=["table1", "seeds", "comparisons", "claims", "reproduction", "ablation", "cost"]
            + (["design"] if plan.suite.comparison else []),
        ),
        html=reported(tables_of_suite, "Tables", "tables", "html"),
        copies=[
            f"{results}/tables/{name}.{suffix}"
            for names in tables_of_suite.values()
            for name in names
            for suffix in ("md", "tex")
        ],
    log:
        f"{results}/logs/tables.log",
    conda:
        "../../environment.yml"
    params:
        methods=methods,
    shell:
        "exec python -m msgunet tables {params.methods} --settings {input.settings:q}"
        f" --results {results}"
        " 2> {log:q}"


rule figures:
    input:
        settings=f"{settings}/report.json",
        metrics=measured["metrics"],
        predictions=measured["predictions"],
        ablation=measured["ablation"],
        gradients=measured["gradients"],
        cost=f"{results}/cost.csv",
    output:
        captions=f"{results}/figures/figures.json",
        images=reported(figures_of_suite, "Figures", "figures", "png"),
        vectors=[f"{results}/figures/{name}.pdf" for names in figures_of_suite.values() for name in names],
    log:
        f"{results}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        methods=methods,
    shell:
        "exec python -m msgunet figures {params.methods} --settings {input.settings:q}"
        f" --results {results}"
        " 2> {log:q}"


rule page:
    input:
        settings=f"{settings}/report.json",
        predictions=measured["predictions"],
        tables=rules.tables.output,
        figures=rules.figures.output,
    output:
        index=f"{page}/index.html",
        folder=in_report(
            directory(page),
            caption="../report/page.rst",
            category="Page",
            labels={"name": "all of it, with the image browser"},
            htmlindex="index.html",
        ),
    log:
        f"{results}/logs/page.log",
    conda:
        "../../environment.yml"
    params:
        methods=methods,
    shell:
        "exec python -m msgunet page {params.methods} --settings {input.settings:q}"
        f" --results {results}"
        " 2> {log:q}"

"""The functions of the verbs that read results. As in `verbs.py`, each imports its packages when it is called."""

from pathlib import Path
from typing import Any

from msgunet.cli.verbs import command_of
from msgunet.core.errors import UserError
from msgunet.core.text import printable


def verify(options: Any) -> None:
    path = Path(options.suite)
    if path.is_dir() or (len(path.parts) > 1 and path.suffix not in (".yaml", ".yml")):
        from msgunet.evaluation.shared import verify_shared

        verify_shared(path, options.images, options.out)
        return
    from msgunet.evaluation.verify import verify_suite
    from msgunet.suite.plan import load_plan

    if options.out is not None:
        raise UserError("--out needs a folder of shared results; a suite is checked against its own files")
    verify_suite(load_plan(options.suite), options.images)


def report(options: Any) -> None:
    from msgunet.report.figures import write_figures
    from msgunet.report.page import write_page
    from msgunet.report.tables import write_tables
    from msgunet.suite.plan import load_plan

    plan = load_plan(options.suite)
    results = plan.results
    settings = results / "settings" / "report.json"
    if not settings.is_file():
        raise UserError(f"there is no {settings}; run 'snakemake --cores all --config suite={options.suite}' first")
    _refuse_changed(plan, options.suite)
    write_tables(settings, results)
    write_figures(settings, results)
    print(f"The page with the results so far: {write_page(settings, results).resolve().as_uri()}")


def _refuse_changed(plan: Any, suite: str) -> None:
    if changed := plan.changed():
        raise UserError(
            f"the suite has changed since it was run: {len(changed)} of its settings files are out of date "
            f"({changed[0]}); 'snakemake -n --config suite={suite}' updates them and lists the jobs that must run again"
        )


def share(options: Any) -> None:
    from msgunet.report.share import share
    from msgunet.suite.plan import load_plan

    plan = load_plan(options.suite)
    if (plan.results / "settings").is_dir():
        _refuse_changed(plan, options.suite)
    elif (plan.results / "speed.csv").is_file():
        # 'msgunet bench' alone needs no settings files.
        plan.write()
    out = share(plan, options.suite, options.out, command_of(options), options.weights)
    print(f"{out}: redistributable tables, figures and numbers")


def explain(options: Any) -> None:
    from msgunet.evaluation.explain import explain
    from msgunet.suite.plan import load_plan

    for line in explain(load_plan(options.suite), options.suite, options.entry, options.metric, options.image):
        print(printable(line))


def show(options: Any) -> None:
    from msgunet.report.show import show
    from msgunet.suite.plan import load_plan

    show(load_plan(options.suite), options.suite)

"""The results of a suite on the terminal."""

import shlex

from msgunet.core.attempts import measured_facts
from msgunet.core.errors import UserError
from msgunet.core.frames import read_frame
from msgunet.core.text import first_of, from_markdown
from msgunet.report.files import compared, lead_protocol
from msgunet.suite.plan import Plan

_LISTED = 4


def show(plan: Plan, suite: str) -> None:
    """Print Table 1 in its first protocol and the address of the page; `suite`: its name or path, for advice.

    Below Table 1 stands the comparison with the suite's reference entry, if it names one.
    """
    command = f"snakemake --cores all --config suite={shlex.quote(suite)}"
    page = plan.results / "report" / "index.html"
    for dataset in plan.data:
        sizes = [run.settings.size for run in plan.runs if run.trainable and run.settings.dataset == dataset.name]
        protocol = lead_protocol(sizes, plan.suite.report.protocol, plan.suite.evaluation.protocols)
        path = plan.results / "tables" / f"table1_{dataset.name}_{protocol}.md"
        if not path.is_file():
            raise UserError(f"there is no {path}; run '{command}' first")
        design = path.with_name(f"design_{dataset.name}_{protocol}.md")
        for table in (path, *([design] if dataset.name in compared(plan.report) and design.is_file() else [])):
            print(from_markdown(table.read_text(encoding="utf-8")))
    if outdated := _outdated(plan):
        print(f"Made from other settings than the suite's current ones: {', '.join(outdated)}. Again: {command}\n")
    print(f"The page with all tables and figures: {page.resolve().as_uri()}")


def _outdated(plan: Plan) -> list[str]:
    """Return what in the tables was made from other settings than those of the suite now."""
    path = plan.results / "tables" / "table1.csv"
    made = path.is_file() and (not compared(plan.report) or path.with_name("design.csv").is_file())
    report = plan.results / "settings" / "report.json"
    found = ["the report"] if not made or report in plan.changed() else []
    rows = read_frame(path) if path.is_file() else None
    for run in plan.runs if rows is not None else ():
        settings = run.settings
        of_run = rows[(rows["dataset"] == settings.dataset) & (rows["entry"] == settings.entry)]
        measured = measured_facts(run.folder, settings, plan.suite.evaluation)
        if of_run.empty or ((of_run["status"] == "done").any() and not measured):
            found.append(f"{plan.titles[settings.entry]} on {settings.dataset}")
    return first_of([*dict.fromkeys(found)], _LISTED)

"""The results of a suite on the terminal."""

import shlex

from msgunet.core.errors import UserError
from msgunet.core.text import from_markdown
from msgunet.report.files import lead_protocol
from msgunet.suite.plan import Plan


def show(plan: Plan, suite: str) -> None:
    """Print Table 1 in its first protocol and the address of the page; `suite`: its name or path, for advice."""
    page = plan.results / "report" / "index.html"
    for dataset in plan.data:
        sizes = [run.settings.size for run in plan.runs if run.trainable and run.settings.dataset == dataset.name]
        protocol = lead_protocol(sizes, plan.suite.report.protocol, plan.suite.evaluation.protocols)
        path = plan.results / "tables" / f"table1_{dataset.name}_{protocol}.md"
        if not path.is_file():
            command = f"snakemake --cores all --config suite={shlex.quote(suite)}"
            raise UserError(f"there is no {path}; run '{command}' first")
        print(from_markdown(path.read_text(encoding="utf-8")))
    print(f"The page with all tables and figures: {page.resolve().as_uri()}")

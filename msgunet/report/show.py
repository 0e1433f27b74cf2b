"""The results of a suite on the terminal."""

import shlex

from msgunet.core.errors import UserError
from msgunet.core.text import unescaped
from msgunet.suite.plan import Plan


def show(plan: Plan, suite: str) -> None:
    """Print Table 1 in the suite's protocol and the address of the page; `suite`: its name or path, for advice."""
    page = plan.results / "report" / "index.html"
    for dataset in plan.data:
        path = plan.results / "tables" / f"table1_{dataset.name}_{plan.suite.report.protocol}.md"
        if not path.is_file():
            command = f"snakemake --cores all --config suite={shlex.quote(suite)}"
            raise UserError(f"there is no {path}; run '{command}' first")
        print(unescaped(path.read_text(encoding="utf-8")))
    print(f"The page with all tables and figures: {page.resolve().as_uri()}")

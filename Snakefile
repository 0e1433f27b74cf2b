"""The workflow of the benchmark: select the suite and include the rules. See `workflow/rules` and docs/design.md."""

import os
import shlex
import sys

from snakemake.utils import min_version

min_version("9.0")

# Snakemake itself reads the paths of conda environments and captions as templates.
if {"{", "}"} & {*workflow.basedir}:
    raise WorkflowError(f"the project's path has braces, which Snakemake cannot handle: {workflow.basedir}; rename it")

# Jobs run `python -m msgunet` from this checkout, with the Python that runs Snakemake, except in a conda environment
# made by Snakemake (--sdm conda).
sys.path.insert(0, workflow.basedir)
shell.prefix(
    "set -euo pipefail; case ${{CONDA_PREFIX:-}} in */.snakemake/conda/*) ;; "
    f"*) export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH ;; esac; "
    f"export PYTHONPATH={shlex.quote(workflow.basedir)}:${{{{PYTHONPATH:-}}}}; "
    # A job whose disk is full waits before it tries again; seconds between tries.
    'export MSGUNET_DISK_PAUSES="${{MSGUNET_DISK_PAUSES:-10 60 300}}"; '
)


report: "workflow/report/suite.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/report.smk"


localrules:
    all,


# Lists every measured file explicitly, so that a deleted one is made again, together with everything made from it.
rule all:
    default_target: True
    input:
        *rules.page.output,
        *rules.tables.output,
        *rules.figures.output,
        *(file for files in measured.values() for file in files),

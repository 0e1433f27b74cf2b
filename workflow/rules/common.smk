from filelock import Timeout
from msgunet.suite import jobs
from msgunet.core.errors import UserError
from msgunet.core.files import KernelLock
from msgunet.suite.preflight import check
from msgunet.suite.status import report_is_due
from msgunet.suite.plan import load_plan
from msgunet.suite.file import suite_from_config

# By another name, since Snakemake takes a line that begins with `report` for a statement of its own.
from snakemake.io import report as in_report

try:
    suite = suite_from_config(config)
    plan = load_plan(suite)
except UserError as error:
    raise WorkflowError(str(error))
# A job reads the suite too, on its node perhaps; only the Snakemake that all started with may change what it says.
if not workflow.remote_exec:
    plan.write()

results = str(plan.results)
settings = f"{results}/settings"
compute = f"{settings}/compute.json"
page = f"{results}/report"
threads_per_run = plan.suite.compute.threads
# A cluster has no total; a job there must ask for the same when the rules are read again on its node.
cores = None if workflow.remote_exec else workflow.resource_settings.cores
cores = cores or 2 * threads_per_run
# Again is for the Snakemake that all started with, not for the one within a job whose time is up.
retries_of_training = 0 if workflow.remote_exec else 2


wildcard_constraints:
    dataset="[a-z0-9_]{1,64}",
    entry="[a-z0-9_]{1,64}",
    seed="[0-9]+",
    variant="with|without",


# The kernel lets go of this lock when Snakemake ends, however it ends; hence no stale locks (see the default profile).
run_lock = KernelLock(".snakemake/benchmark.lock")


onstart:
    try:
        run_lock.acquire(timeout=0)
        check(plan, elsewhere=workflow.non_local_exec)
    except Timeout:
        raise WorkflowError("another Snakemake is at work in this folder; wait for it or stop it")
    except UserError as error:
        raise WorkflowError(str(error))


# One failed method must not keep the others from being seen.
onerror:
    if not workflow.remote_exec and report_is_due(plan):
        print("Not everything could be made; the report is made from what there is.", file=sys.stderr)
        shell("python -m msgunet report {suite:q} 1>&2 || true; python -m msgunet status {suite:q} 1>&2 || true")


def manifest_of(wildcards):
    """The manifest that a run's images are found by."""
    return next(f"{data.folder}/manifest.csv" for data in plan.data if data.name == wildcards.dataset)


def folder_of(wildcards, output):
    """The folder that a job writes in."""
    return os.path.dirname(output[0])


def vgg19_of(folder):
    """The VGG-19 weights, for runs whose losses read ImageNet features."""
    perceptual = run_of(folder).settings.perceptual
    return [plan.machine.vgg19] if perceptual and perceptual.weights == "imagenet" else []


def request(job, folder, what):
    """What a run's `training` or `evaluation` asks for: `runtime` in minutes, `mem_mb` or `gpu`."""
    return lambda wildcards, attempt: getattr(job(plan, run_of(folder.format(**wildcards)), attempt), what)


def run_of(folder):
    """The run that a folder belongs to."""
    return next(run for run in (*plan.runs, *plan.gradients) if str(run.folder) == folder)


def priority_of(folder):
    """Longest trainings first; evaluations come before all of them."""
    return ranks[run_of(folder).work]


ranks = {work: rank for rank, work in enumerate(sorted({run.work for run in (*plan.runs, *plan.gradients)}))}


def processes_of(folder):
    """How many processes train a run together."""
    return plan.suite.compute.processes if run_of(folder).trainable else 1


def python_of(folder):
    """What starts a training: Python, or torchrun for several processes."""
    count = processes_of(folder)
    return f"torch.distributed.run --standalone --nproc-per-node {count} -m --" if count > 1 else ""


def files_of(wildcards):
    """What a preparation reads."""
    archives, images = plan.inputs(wildcards.prepared)
    # Archives may be deleted, and come back later without anything to do; a user's own images may change. Snakemake
    # would take braces in a file's name for wildcards.
    return [*(ancient(str(path)) for path in archives), *(str(path) for path in images if "{" not in str(path))]


def reported(sections, category, folder, suffix):
    """Declare files of a report by section, so that `snakemake --report` shows them."""
    return [
        in_report(
            f"{results}/{folder}/{name}.{suffix}",
            caption=f"../report/{folder}.rst",
            category=category,
            subcategory=section.capitalize(),
            labels={"name": name.replace("_", " ")},
        )
        for section, names in sections.items()
        for name in names
    ]

from filelock import Timeout
from msgunet.suite import jobs
from msgunet.core.errors import UserError
from msgunet.core.files import KernelLock
from msgunet.core.metrics import weights_of
from msgunet.core.permissions import explain
from msgunet.core.text import printable
from msgunet.core.user import ensure_user
from msgunet.suite.preflight import check
from msgunet.suite.status import report_is_due
from msgunet.suite.running import pass_on_sigterm, wait_for_disk
from msgunet.suite.plan import load_plan
from msgunet.suite.runs import larger_data
from msgunet.suite.file import suite_from_config

# Renamed, since Snakemake parses a line that begins with `report` as a directive.
from snakemake.io import report as in_report

ensure_user()
try:
    suite = suite_from_config(config)
    plan = load_plan(suite)
except UserError as error:
    raise WorkflowError(printable(str(error)))
except PermissionError as error:
    raise WorkflowError(printable(explain(error)))

results = str(plan.results)
settings = f"{results}/settings"
compute = f"{settings}/compute.json"
page = f"{results}/report"
threads_per_run = plan.suite.compute.threads
# A cluster has no total number of cores. The number must be the same when a job parses the rules again on its node.
cores = None if workflow.remote_exec else workflow.resource_settings.cores
cores = cores or 2 * threads_per_run
# Only the main Snakemake process retries, not the one inside a job that has reached its time limit.
retries_of_training = 0 if workflow.remote_exec else 2


wildcard_constraints:
    dataset="[a-z0-9_]{1,64}",
    entry="[a-z0-9_]{1,64}",
    seed="[0-9]+",
    variant="with|without",


# The kernel releases this lock however Snakemake ends, so there are no stale locks (see the default profile).
run_lock = KernelLock(".snakemake/benchmark.lock")

# Jobs parse the suite too, possibly on other nodes; only the main Snakemake process writes its settings files. A dry run
# beside a run in progress must not change the settings that its jobs read.
if not workflow.remote_exec:
    try:
        with run_lock.acquire(timeout=0):
            plan.write()
    except Timeout:
        plan.write(missing_only=True)
        if changed := plan.changed():
            names = ", ".join(map(str, changed))
            print(
                f"a run is in progress; not updated until it ends, so not part of this plan: {names}", file=sys.stderr
            )
    except UserError as error:
        raise WorkflowError(printable(str(error)))
    except PermissionError as error:
        raise WorkflowError(printable(explain(error)))


# Set when SIGTERM has been passed on to the jobs. On a cluster it is not: there, jobs outlive Snakemake.
stopping = None


# Only here has Snakemake installed its own handler of SIGTERM.
onstart:
    global stopping
    try:
        run_lock.acquire(timeout=0)
        check(plan, remote=workflow.non_local_exec)
        wait_for_disk(workflow.persistence)
        if not workflow.non_local_exec:
            stopping = pass_on_sigterm()
    except Timeout:
        raise WorkflowError("another Snakemake is running in this folder; wait for it or stop it")
    except UserError as error:
        raise WorkflowError(printable(str(error)))


# A failed method must not keep the others out of the report.
onerror:
    stopped = stopping is not None and stopping.is_set()
    if not stopped and not workflow.remote_exec and report_is_due(plan):
        print("Some jobs failed; the report is made from the results so far.", file=sys.stderr)
        shell("python -m msgunet report {suite:q} 1>&2 || true; python -m msgunet status {suite:q} 1>&2 || true")


def methods(wildcards):
    """Return arguments that name the suite's custom methods, since a settings file may not have code executed."""
    # A function, since Snakemake would read braces in a parameter as wildcards.
    return " ".join(f"--method {shlex.quote(file)}" for file in plan.method_files)


def manifest_of(wildcards):
    """Return the manifest of a run's data set."""
    return next(f"{data.folder}/manifest.csv" for data in plan.data if data.name == wildcards.dataset)


def larger_of(folder):
    """Return the manifest of the larger training images that a run's jitter needs, if any."""
    run = run_of(folder).settings
    data = larger_data(next(data for data in plan.data if data.name == run.dataset), run)
    return [f"{data.folder}/manifest.csv"] if data else []


def folder_of(wildcards, output):
    """Return the folder that a job writes to."""
    return os.path.dirname(output[0])


def vgg19_of(folder):
    """Return the VGG-19 weights, for runs whose losses use ImageNet features."""
    perceptual = run_of(folder).settings.perceptual
    return [plan.machine.vgg19] if perceptual and perceptual.weights == "imagenet" else []


def weights_of_metrics(wildcards):
    """Return the published weights that the suite's metrics need."""
    return [getattr(plan.machine, key) for key in weights_of(plan.suite.evaluation.metrics)]


def request(job, folder, resource):
    """Return a function for a resource of a run's job (`training`, `evaluation`): `runtime`, `mem_mb` or `gpu`."""
    return lambda wildcards, attempt: getattr(job(plan, run_of(folder.format(**wildcards)), attempt), resource)


def number_of_try(wildcards, attempt):
    """Return which try of a job this is: only a training that was killed or ran out of memory is tried again."""
    return attempt


def run_of(folder):
    """Return the run that a folder belongs to."""
    return next(run for run in (*plan.runs, *plan.gradients) if str(run.folder) == folder)


def priority_of(folder):
    """Return the priority of a training: longest first; evaluations have priority over all trainings."""
    return ranks[run_of(folder).relative_duration]


durations = sorted({run.relative_duration for run in (*plan.runs, *plan.gradients)})
ranks = {duration: rank for rank, duration in enumerate(durations)}


def processes_of(folder):
    """Return the number of processes that train a run together."""
    return plan.suite.compute.processes if run_of(folder).trainable else 1


def python_of(folder):
    """Return the launcher of a training: empty for one process, torchrun for several."""
    count = processes_of(folder)
    return f"torch.distributed.run --standalone --nproc-per-node {count} -m --" if count > 1 else ""


def files_of(wildcards):
    """Return the input files of a preparation."""
    archives, listed = plan.inputs(wildcards.prepared)
    # Archives can be deleted and downloaded again without a new preparation; a change to a user's own images needs one.
    return [*(ancient(str(path)) for path in archives), *map(str, listed)]


def reported(sections, category, folder, suffix):
    """Declare the files of a report by section, so that `snakemake --report` includes them."""
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

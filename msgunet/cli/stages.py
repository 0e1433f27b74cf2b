"""The verbs of the stages: the rules of the workflow run exactly these."""

from pathlib import Path

from msgunet.cli import verbs
from msgunet.cli.arguments import AddVerb, compute, jobs, methods, path, positive
from msgunet.core.paths import ARCHIVES, WEIGHTS
from msgunet.core.pipeline import usable_cores

_RUN = "run.json: the settings of the run"
_GENERATOR = "generator.safetensors of this run"
_DATA = "folder of the prepared data set (default: the one that run.json names)"


def add_stages(verb: AddVerb) -> None:
    """Add the verbs that the workflow calls."""
    fetch = verb(
        "fetch",
        verbs.fetch,
        "Download published files and verify them.",
        "Files that exist already are kept, and an interrupted download is resumed.",
    )
    fetch.add_argument(
        "name", nargs="+", help="names of data sets or of single files, or weights: vgg19, vgg16, lpips, dists"
    )
    path(fetch, "--out", f"folder for the files (default: where suites look, {ARCHIVES} and {WEIGHTS})", False)
    compute(fetch)

    prepare = verb(
        "prepare",
        verbs.prepare,
        "Prepare a data set: convert its archives into image pairs of one size and a manifest.",
        "An interrupted preparation is resumed.",
    )
    prepare.add_argument(
        "name", nargs="?", help="data set to prepare with its usual settings; for other settings use --settings instead"
    )
    path(prepare, "--settings", "dataset.json of a suite's data set, instead of a name", False)
    path(prepare, "--out", "folder for the images and manifest.csv")
    path(prepare, "--mirror", f"folder that holds the archives (default: that of --compute, else {ARCHIVES})", False)
    prepare.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="size to resize the images to (default: the paper's)",
    )
    prepare.add_argument(
        "--threads", type=positive, default=usable_cores(), metavar="N", help="CPU threads (default: all cores)"
    )
    compute(prepare)

    train = verb(
        "train",
        verbs.train,
        "Train one run, resuming from its newest checkpoint.",
        "With N processes or GPUs: torchrun --standalone --nproc-per-node N -m -- msgunet train ...",
    )
    path(train, "--run", _RUN)
    path(train, "--out", "folder for generator.safetensors, history.csv, training.json and checkpoints")
    path(train, "--data", _DATA, False)
    compute(train)

    evaluate = verb(
        "evaluate",
        verbs.evaluate,
        "Translate the test images with a trained generator, and compute the metrics of each.",
    )
    path(evaluate, "--run", _RUN)
    path(evaluate, "--generator", _GENERATOR)
    path(
        evaluate,
        "--settings",
        "metrics, protocols and precision: settings/evaluation.json of a suite (default: PSNR, SSIM and VIF, both "
        "protocols, fp32)",
        False,
    )
    path(evaluate, "--out", "folder for metrics.csv and predictions/")
    path(evaluate, "--data", _DATA, False)
    jobs(
        evaluate,
        "CPU threads that read, measure and write images beside the network; on a CPU each image is measured by the "
        "threads of --compute (default: all cores)",
    )
    compute(evaluate)

    ablate = verb(
        "ablate",
        verbs.ablate,
        "Run the ablation of input versus output resolution (the paper's Tables 2 and 3).",
        "The generator must have several scales.",
    )
    path(ablate, "--run", _RUN)
    path(ablate, "--generator", _GENERATOR)
    path(ablate, "--out", "CSV to write")
    path(ablate, "--data", _DATA, False)
    compute(ablate)

    gradients = verb(
        "gradients", verbs.train, "Train one variant and record the gradients of its generator (the paper's Fig. 2)."
    )
    path(gradients, "--run", "run.json with gradient_records above 0")
    path(gradients, "--out", "folder for gradients.csv and the files that 'train' writes")
    path(gradients, "--data", _DATA, False)
    compute(gradients)
    for sub in (train, evaluate, ablate, gradients):
        methods(sub)
    for sub in (train, gradients):
        sub.add_argument(
            "--wait", action="store_true", help="if another process is training this run, wait until it has ended"
        )
        sub.add_argument(
            "--attempt",
            type=positive,
            default=1,
            metavar="N",
            help="number of this try; from the second on, a training that ended with an error is not tried again",
        )

    cost = verb(
        "cost",
        verbs.cost,
        "Measure the cost of every network of a suite, and print the table.",
        "The cost is parameters, MACs and FLOPs, and for generators also latency and peak memory.",
    )
    networks = cost.add_mutually_exclusive_group(required=True)
    networks.add_argument("--suite", help="name of a suite in config/, or path of a .yaml file")
    networks.add_argument("--settings", type=Path, metavar="PATH", help="settings/cost.json of a suite")
    cost.add_argument(
        "--counts-only", action="store_true", help="count parameters and operations only; nothing is timed"
    )
    path(cost, "--out", "CSV to write")
    methods(cost)
    compute(cost)

    for name, function, text in (
        ("tables", verbs.tables, "Make the tables (CSV, Markdown, LaTeX, HTML) from the results."),
        ("figures", verbs.figures, "Make the figures (PDF and PNG) from the results."),
        ("page", verbs.page, "Make the HTML page, a folder that a browser opens from disk, from the results."),
    ):
        sub = verb(name, function, text)
        path(sub, "--settings", "settings/report.json of a suite")
        path(sub, "--results", "results folder of the suite")
        methods(sub)

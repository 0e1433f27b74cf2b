"""The command line: one verb for each stage; the rules of the workflow only call these."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgunet.cli import verbs
from msgunet.core.settings import ARCHIVES, WEIGHTS
from msgunet.core.version import __version__

_RUN = "run.json: the settings of the run"
_GENERATOR = "generator.safetensors of this run"
_DATA = "folder of the prepared data set (default: the one that run.json names)"
_MODEL = "generator.safetensors of a run"
_METHOD_FILE = "Python file of the custom method (default: the one that the suite named)"
_PRECISIONS = ["fp32", "tf32", "bf16"]

_EPILOG = """\
'msgunet VERB --help' explains the arguments of a verb.

The workflow runs all verbs that a suite needs:
  snakemake --cores all --config suite=demo

Every verb also works by itself. For example, to train one run by hand, let
'snakemake --cores all --config suite=demo -n' write the settings files, then:
  msgunet train --run results/demo/runs/bluemarble/msgunet/seed0/run.json --out /tmp/try
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="msgunet",
        description="Paired image-to-image translation at high resolution: train, evaluate and report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"msgunet {__version__}")
    sub_parsers = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function: Callable[[Any], None], summary: str, details: str = "") -> argparse.ArgumentParser:
        sub = sub_parsers.add_parser(name, help=summary, description=f"{summary} {details}".strip())
        sub.set_defaults(verb=function)
        return sub

    def path(sub: argparse.ArgumentParser, flag: str, text: str, required: bool = True) -> None:
        sub.add_argument(flag, type=Path, metavar="PATH", required=required, help=text)

    def suite(sub: argparse.ArgumentParser) -> None:
        text = "name of a suite in config/, or path of a .yaml file (default: paper)"
        sub.add_argument("suite", nargs="?", default="paper", help=text)

    def compute(sub: argparse.ArgumentParser) -> None:
        text = "settings of this machine (device, threads, folder of the archives): settings/compute.json of a suite"
        path(sub, "--compute", text, False)

    check = verb(
        "check",
        verbs.check,
        "Check, before any work starts, that a suite is valid and this machine meets its requirements.",
        "This preflight check looks for archives, weights, GPUs and free disk space. It also tries a training step of "
        "each custom method, without data.",
    )
    suite(check)
    check.add_argument(
        "--cluster", action="store_true", help="the trainings run on a cluster, so this machine needs no GPU"
    )

    plan = verb(
        "plan",
        verbs.plan,
        "Forecast the cost of a suite: jobs, steps, operations and hours of every training.",
        "Nothing is run.",
    )
    suite(plan)
    path(
        plan,
        "--speed",
        "CSV that 'msgunet bench' wrote on the device to forecast for (default: speeds measured by this project)",
        False,
    )
    plan.add_argument(
        "--rate",
        type=_above_zero,
        metavar="TFLOP/s",
        help="speed to assume for every training, instead of measured speeds",
    )

    status = verb(
        "status",
        verbs.status,
        "Print the status of a suite: which runs are done, running, stopped, failed or still to come.",
    )
    suite(status)

    data = verb("data", verbs.data, "List every data set: its location, state, licence and missing files.")
    data.add_argument(
        "action",
        nargs="?",
        choices=["check"],
        help="check: verify the archives of one data set by checksum, and its prepared images by their hashes",
    )
    data.add_argument("name", nargs="?", help="the data set to check")
    compute(data)

    fetch = verb(
        "fetch",
        verbs.fetch,
        "Download published files and verify them.",
        "Files that exist already are kept, and an interrupted download is resumed.",
    )
    fetch.add_argument(
        "name", nargs="+", help="names of data sets or of single files, or vgg19 (ImageNet weights, 548 MB)"
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
        "--threads", type=_positive, default=os.cpu_count(), metavar="N", help="CPU threads (default: all cores)"
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
        "metrics and protocols: settings/evaluation.json of a suite (default: all metrics, both protocols)",
        False,
    )
    path(evaluate, "--out", "folder for metrics.csv and predictions/")
    path(evaluate, "--data", _DATA, False)
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
    for sub in (train, gradients):
        sub.add_argument(
            "--wait", action="store_true", help="if another process is training this run, wait until it has ended"
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
    compute(cost)

    bench = verb(
        "bench",
        verbs.bench,
        "Benchmark training steps and inference against plain PyTorch and the device limit.",
        "Plain PyTorch is a straightforward implementation of the same networks and losses.",
    )
    suite(bench)
    bench.add_argument("--entry", nargs="+", metavar="NAME", help="entries of the suite (default: all)")
    bench.add_argument(
        "--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="size of the images (default: the suite's sizes)"
    )
    bench.add_argument("--part", nargs="+", choices=["inference", "training"], help="parts to time (default: both)")
    bench.add_argument(
        "--precision",
        nargs="+",
        choices=_PRECISIONS,
        help="precisions to time (default: fp32, and the others that the device computes natively); speed-ups are "
        "relative to plain PyTorch in the first of fp32, tf32 and bf16 that is timed",
    )
    bench.add_argument("--repeats", type=_positive, default=10, metavar="N", help="timed passes (default: 10)")
    bench.add_argument("--compile", action="store_true", help="time the engine under torch.compile too")
    path(
        bench,
        "--out",
        "CSV to write; rows that it already holds are not timed again (default: results/SUITE/speed.csv, with a table "
        "and a figure in the same folder, all of which the suite's report includes)",
        False,
    )
    compute(bench)

    profile = verb(
        "profile",
        verbs.profile,
        "Profile one network: the time of each layer against the device limit, and of each PyTorch operator.",
        "Use it to find out why a network is far from the device limit in 'msgunet bench'.",
    )
    suite(profile)
    profile.add_argument("--entry", metavar="NAME", help="entry of the suite (default: the only one that it trains)")
    profile.add_argument(
        "--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="size of the images (default: the suite's size)"
    )
    profile.add_argument(
        "--part",
        choices=["inference", "training"],
        default="inference",
        help="inference: one image, by layer and by operator; training: one step, by operator (default: inference)",
    )
    profile.add_argument(
        "--precision", choices=_PRECISIONS, default="fp32", help="precision to compute in (default: fp32)"
    )
    profile.add_argument(
        "--way",
        choices=["plain", "engine"],
        default="engine",
        help="plain: plain PyTorch, a straightforward implementation; engine: this project's optimised path "
        "(default: engine)",
    )
    profile.add_argument(
        "--repeats", type=_positive, metavar="N", help="timed passes or steps (default: 10 passes, 3 steps)"
    )
    profile.add_argument(
        "--rows", type=_positive, default=20, metavar="N", help="rows to print of each table (default: 20)"
    )
    path(profile, "--out", "CSV to write, with all rows", False)
    compute(profile)

    for name, function, text in (
        ("tables", verbs.tables, "Make the tables (CSV, Markdown, LaTeX, HTML) from the results."),
        ("figures", verbs.figures, "Make the figures (PDF and PNG) from the results."),
        ("page", verbs.page, "Make the HTML page, a folder that a browser opens from disk, from the results."),
    ):
        sub = verb(name, function, text)
        path(sub, "--settings", "settings/report.json of a suite")
        path(sub, "--results", "results folder of the suite")
    report = verb("report", verbs.report, "Make the tables, figures and page of a suite from the results so far.")
    suite(report)
    share = verb(
        "share",
        verbs.share,
        "Copy the redistributable results of a suite into a folder that is small enough to commit.",
        "These are the tables, figures, numbers and the suite itself; images only if the data set's licence allows it.",
    )
    suite(share)
    path(share, "--out", "folder to write (default: results/gpu/DEVICE/SUITE or results/cpu/DEVICE/SUITE)", False)
    translate = verb("translate", verbs.translate, "Translate images of any size and shape with a trained generator.")
    translate.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)
    translate.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, and folders of images")
    path(translate, "--out", "folder for the outputs, which keep the names and subfolders of the images")
    translate.add_argument(
        "--scale",
        type=int,
        default=0,
        metavar="K",
        help="scale of the output: its width and height are halved K times (default: 0, full size)",
    )
    path(translate, "--method", _METHOD_FILE, False)
    translate.add_argument(
        "--keep-format",
        action="store_true",
        help="write each output in the format of its image, such as JPEG or TIFF (default: PNG)",
    )
    translate.add_argument("--resume", action="store_true", help="skip images whose output exists already")
    translate.add_argument(
        "--memory",
        type=_above_zero,
        metavar="GB",
        help="the most memory to use, on a CPU by the whole process (default: most of the free memory); an image that "
        "needs more is translated in overlapping tiles, which are blended",
    )
    translate.add_argument(
        "--tile", type=_positive, metavar="PIXELS", help="side of the tiles (default: chosen to fit into the memory)"
    )
    translate.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one (default: auto)"
    )
    translate.add_argument(
        "--precision", choices=_PRECISIONS, default="fp32", help="precision to compute in (default: fp32)"
    )
    translate.add_argument(
        "--threads", type=_positive, default=os.cpu_count(), metavar="N", help="CPU threads (default: all cores)"
    )

    new_suite = verb(
        "new-suite",
        verbs.new_suite,
        "Write a commented suite for a folder of your own image pairs.",
        "It chooses sizes, methods and epochs that this machine can train in the given time.",
    )
    new_suite.add_argument("suite", type=Path, metavar="FILE", help="file to write, such as my_images.yaml")
    path(
        new_suite,
        "--data",
        "folder of pairs: two folders with the same file names, or images with source and target side by side",
        False,
    )
    path(new_suite, "--source", "folder of the source images, together with --target, instead of --data", False)
    path(new_suite, "--target", "folder of the target images", False)
    new_suite.add_argument(
        "--hours",
        type=_above_zero,
        metavar="H",
        help="time for all trainings together (default: 8 on a CPU, 24 on a GPU)",
    )
    new_suite.add_argument(
        "--device", choices=["cpu", "cuda"], help="device to write the suite for (default: a GPU if there is one)"
    )
    new_suite.add_argument("--force", action="store_true", help="overwrite an existing file")

    export = verb(
        "export",
        verbs.export,
        "Export a trained generator to ONNX, with a model card.",
        "The ONNX model accepts images of any size, and is checked against PyTorch at three sizes.",
    )
    export.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)
    path(export, "--method", _METHOD_FILE, False)
    export.add_argument(
        "--onnx",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="file to write (default: MODEL with the suffix .onnx)",
    )

    show = verb("show", verbs.show, "Print Table 1 of a suite, and the location of its page.")
    suite(show)
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number

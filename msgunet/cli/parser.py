"""The command line: one verb per stage; the workflow's rules only call these."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgunet.cli import verbs
from msgunet.core.settings import ARCHIVES, WEIGHTS
from msgunet.core.version import __version__

_METHOD_FILE = "file of your own method, where it is not where the suite named it"

_EPILOG = """\
Every verb works alone; the workflow runs the same ones:
  snakemake --cores all --config suite=demo

A training by hand, after 'snakemake --cores all --config suite=demo -n' has written the settings:
  msgunet train --run results/demo/runs/bluemarble/msgunet/seed0/run.json --out /tmp/try
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="msgunet",
        description="Paired image-to-image translation at high resolution: train, measure and report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"msgunet {__version__}")
    sub_parsers = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function: Callable[[Any], None], text: str) -> argparse.ArgumentParser:
        sub = sub_parsers.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        return sub

    def path(sub: argparse.ArgumentParser, flag: str, text: str, required: bool = True) -> None:
        sub.add_argument(flag, type=Path, metavar="PATH", required=required, help=text)

    def suite(sub: argparse.ArgumentParser) -> None:
        text = "name in config/, or path of a .yaml (default: paper)"
        sub.add_argument("suite", nargs="?", default="paper", help=text)

    def compute(sub: argparse.ArgumentParser) -> None:
        path(
            sub, "--compute", "settings/compute.json of a suite: device, threads, where archives are, and so on", False
        )

    check = verb(
        "check",
        verbs.check,
        "Check a suite: its file, a training step of methods of your own, and whether this machine has what it needs.",
    )
    suite(check)
    check.add_argument("--cluster", action="store_true", help="trainings run on a cluster: no GPU is needed here")

    plan = verb("plan", verbs.plan, "Say what a suite will take: jobs, steps, operations and hours of every training.")
    suite(plan)
    path(plan, "--speed", "CSV of 'msgunet bench' on the device (default: what this project has measured)", False)
    plan.add_argument(
        "--rate", type=_above_zero, metavar="TFLOP/s", help="that trainings reach, instead of measured speeds"
    )

    status = verb("status", verbs.status, "Say where a suite is: what is done, running, failed or still to come.")
    suite(status)

    data = verb("data", verbs.data, "Show every data set: where it is, its state and licence, and what is missing.")
    data.add_argument("action", nargs="?", choices=["check"], help="check: verify archives and prepared images")
    data.add_argument("name", nargs="?", help="the data set to check")
    compute(data)

    fetch = verb("fetch", verbs.fetch, "Download published files and check them; what is there already stays.")
    fetch.add_argument("name", nargs="+", help="data sets, files by their name, or vgg19 (ImageNet weights, 548 MB)")
    path(fetch, "--out", f"folder (default: where suites look, {ARCHIVES} and {WEIGHTS})", False)
    compute(fetch)

    prepare = verb("prepare", verbs.prepare, "Turn a data set's archives into PNG pairs and a manifest.")
    prepare.add_argument("name", nargs="?", help="a data set, with its usual settings; for others: --settings")
    path(prepare, "--settings", "dataset.json of a plan", False)
    path(prepare, "--out", "folder for images and manifest.csv")
    path(prepare, "--mirror", f"folder that holds the archives (default: {ARCHIVES})", False)
    prepare.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="default: the paper's")
    prepare.add_argument("--threads", type=_positive, default=os.cpu_count(), metavar="N", help="default: all cores")
    compute(prepare)

    train = verb(
        "train",
        verbs.train,
        "Train one run, going on from its newest checkpoint. With N processes or GPUs: torchrun --standalone "
        "--nproc-per-node N -m -- msgunet train ...",
    )
    path(train, "--run", "run.json: the run's resolved settings")
    path(train, "--out", "folder for generator.safetensors, history.csv, training.json and checkpoints")
    path(train, "--data", "prepared data, where it is not the folder that run.json names", False)
    compute(train)

    evaluate = verb("evaluate", verbs.evaluate, "Translate the test images and measure each.")
    path(evaluate, "--run", "run.json")
    path(evaluate, "--generator", "generator.safetensors of that run")
    path(evaluate, "--settings", "settings/evaluation.json of a suite (default: all metrics, both protocols)", False)
    path(evaluate, "--out", "folder for metrics.csv and predictions/")
    path(evaluate, "--data", "prepared data, where it is not the folder that run.json names", False)
    compute(evaluate)

    ablate = verb("ablate", verbs.ablate, "Measure input against output resolution (the paper's Tables 2 and 3).")
    path(ablate, "--run", "run.json")
    path(ablate, "--generator", "generator.safetensors of that run")
    path(ablate, "--out", "CSV to write")
    path(ablate, "--data", "prepared data, where it is not the folder that run.json names", False)
    compute(ablate)

    gradients = verb(
        "gradients", verbs.train, "Train one variant and record the generator's gradients (the paper's Fig. 2)."
    )
    path(gradients, "--run", "run.json with gradient_records above 0")
    path(gradients, "--out", "folder for gradients.csv and what 'train' writes")
    path(gradients, "--data", "prepared data, where it is not the folder that run.json names", False)
    compute(gradients)
    for sub in (train, gradients):
        sub.add_argument(
            "--wait", action="store_true", help="where another process trains this run, wait until it has ended"
        )

    cost = verb("cost", verbs.cost, "Count and time every network of a suite, and print the table.")
    given = cost.add_mutually_exclusive_group(required=True)
    given.add_argument("--suite", help="name in config/, or path of a .yaml")
    given.add_argument("--settings", type=Path, metavar="PATH", help="settings/cost.json of a suite")
    cost.add_argument("--counts-only", action="store_true", help="parameters and operations only; nothing is timed")
    path(cost, "--out", "CSV to write")
    compute(cost)

    bench = verb(
        "bench", verbs.bench, "Time training steps and inference against plain PyTorch and the limits of this device."
    )
    suite(bench)
    bench.add_argument("--entry", nargs="+", metavar="NAME", help="only these entries of the suite")
    bench.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="instead of the suite's sizes")
    bench.add_argument("--part", nargs="+", choices=["inference", "training"], help="default: both")
    bench.add_argument(
        "--precision",
        nargs="+",
        choices=["fp32", "tf32", "bf16"],
        help="speed-ups are over plain PyTorch in the first of fp32, tf32, bf16 that is asked for (default: fp32 and "
        "what else the device computes itself)",
    )
    bench.add_argument("--repeats", type=_positive, default=10, metavar="N", help="timed passes (default: 10)")
    bench.add_argument("--compile", action="store_true", help="also under torch.compile")
    path(
        bench,
        "--out",
        "CSV to write; what it holds already is not measured again (default: results/SUITE/speed.csv, with table and "
        "figure beside it, which the suite's report shows)",
        False,
    )
    compute(bench)

    profile = verb(
        "profile",
        verbs.profile,
        "Say where the time of one network goes: layer by layer, against what this device could do, and by torch's "
        "operators. For a network of which 'bench' says that it reaches little of the device's limit.",
    )
    suite(profile)
    profile.add_argument("--entry", metavar="NAME", help="the entry of the suite (default: the only one it trains)")
    profile.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="instead of the suite's size")
    profile.add_argument(
        "--part",
        choices=["inference", "training"],
        default="inference",
        help="inference: one image, by layer and by operator; training: a step, by operator (default: inference)",
    )
    profile.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="default: fp32")
    profile.add_argument(
        "--way",
        choices=["plain", "engine"],
        default="engine",
        help="plain: what one writes first; engine: what this project does (default: engine)",
    )
    profile.add_argument(
        "--repeats", type=_positive, metavar="N", help="timed passes or steps (default: 10 passes, 3 steps)"
    )
    profile.add_argument("--rows", type=_positive, default=20, metavar="N", help="printed of a table (default: 20)")
    path(profile, "--out", "CSV to write, with all rows", False)
    compute(profile)

    for name, function, text in (
        ("tables", verbs.tables, "Make the tables (CSV, Markdown, LaTeX, HTML) from what has been measured."),
        ("figures", verbs.figures, "Make the figures (PDF and PNG) from what has been measured."),
        ("page", verbs.page, "Make the page: a folder that a browser opens from disk."),
    ):
        sub = verb(name, function, text)
        path(sub, "--settings", "settings/report.json of a suite")
        path(sub, "--results", "folder of the suite's results")
    report = verb("report", verbs.report, "Make tables, figures and page of a suite from what is done so far.")
    suite(report)
    share = verb(
        "share",
        verbs.share,
        "Copy what of a suite's results may be passed on into a folder small enough to commit: tables, figures, "
        "numbers and the suite; images only where the data set's licence allows it.",
    )
    suite(share)
    path(share, "--out", "folder (default: results/gpu/DEVICE/SUITE or results/cpu/DEVICE/SUITE)", False)
    translate = verb("translate", verbs.translate, "Translate images of any size and shape by a trained generator.")
    translate.add_argument("model", type=Path, metavar="MODEL", help="generator.safetensors of a run")
    translate.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files, and folders of them")
    path(translate, "--out", "folder for the results, which keep names and folders")
    translate.add_argument(
        "--scale", type=int, default=0, metavar="K", help="output at half the size K times (default: 0, full size)"
    )
    path(translate, "--method", _METHOD_FILE, False)
    translate.add_argument(
        "--keep-format", action="store_true", help="write JPEG for JPEG, TIFF for TIFF and so on (default: PNG)"
    )
    translate.add_argument("--resume", action="store_true", help="leave results that are there already")
    translate.add_argument(
        "--memory",
        type=_above_zero,
        metavar="GB",
        help="that may be taken, on a CPU by the whole process (default: most of what is free); images that need "
        "more are translated in overlapping tiles, which are blended",
    )
    translate.add_argument(
        "--tile", type=_positive, metavar="PIXELS", help="side of the tiles, instead of one chosen by memory"
    )
    translate.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    translate.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="default: fp32")
    translate.add_argument(
        "--threads", type=_positive, default=os.cpu_count(), metavar="N", help="of a CPU (default: all cores)"
    )

    new_suite = verb(
        "new-suite",
        verbs.new_suite,
        "Look at a folder of image pairs and write a commented suite for them: sizes, methods and epochs that this "
        "machine can do in the time given.",
    )
    new_suite.add_argument("suite", type=Path, metavar="FILE", help="to write, like my_images.yaml")
    path(new_suite, "--data", "folder with pairs: two folders with the same names, or images side by side", False)
    path(new_suite, "--source", "instead: folder of the sources", False)
    path(new_suite, "--target", "and folder of the targets", False)
    new_suite.add_argument(
        "--hours", type=_above_zero, metavar="H", help="for all trainings together (default: 8 on a CPU, 24 on a GPU)"
    )
    new_suite.add_argument("--device", choices=["cpu", "cuda"], help="to write it for (default: a GPU if there is one)")
    new_suite.add_argument("--force", action="store_true", help="write over a file that is there")

    export = verb(
        "export",
        verbs.export,
        "Write a trained generator as ONNX for images of any size, checked against torch at three sizes, and a card.",
    )
    export.add_argument("model", type=Path, metavar="MODEL", help="generator.safetensors of a run")
    path(export, "--method", _METHOD_FILE, False)
    export.add_argument(
        "--onnx",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="to write (default: MODEL with the ending .onnx)",
    )

    show = verb("show", verbs.show, "Print Table 1 of a suite, and where its page is.")
    suite(show)
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate

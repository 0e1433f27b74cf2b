"""The verbs for people: suites before and after they run, trained models, and speed."""

from pathlib import Path

from msgunet.cli import results, verbs
from msgunet.cli.arguments import PRECISIONS, AddVerb, above_zero, compute, jobs, path, positive, suite
from msgunet.core.pipeline import usable_cores

_MODEL = "generator.safetensors of a run"
_METHOD_FILE = "Python file of the custom method; needed if the model was trained with one"


def add_tools(verb: AddVerb) -> None:
    """Add the verbs that people call."""
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

    check.add_argument(
        "--gpu",
        action="store_true",
        help="instead, check in about a minute whether this machine's GPU works: free memory, precisions, and for each "
        "network of the suite an image, a training step and its memory, compared with the CPU",
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
        type=above_zero,
        metavar="TFLOP/s",
        help="speed to assume for every training, instead of measured speeds",
    )
    plan.add_argument(
        "--predict",
        metavar="DEVICE",
        help="instead of measured speeds, foretell those of a device whose limits are known: h100, or a CSV that "
        "'msgunet bench' wrote there; real trainings take longer",
    )
    plan.add_argument(
        "--changes",
        action="store_true",
        help="instead of a forecast, list what Snakemake would run now, and which changed settings are the reason; "
        "like 'snakemake -n', it updates the settings files",
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
        type=above_zero,
        metavar="GB",
        help="the most memory to use, on a CPU by the whole process (default: most of the free memory); an image that "
        "needs more is translated in overlapping tiles, which are blended",
    )
    translate.add_argument(
        "--tile", type=positive, metavar="PIXELS", help="side of the tiles (default: chosen to fit into the memory)"
    )
    translate.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one (default: auto)"
    )
    translate.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="precision to compute in (default: fp32)"
    )
    translate.add_argument(
        "--threads",
        type=positive,
        default=usable_cores(),
        metavar="N",
        help="CPU threads of the network (default: all cores)",
    )
    jobs(translate, "number of threads that read and write images beside the network (default: all cores)")

    export = verb(
        "export",
        verbs.export,
        "Export a trained generator to ONNX, with a model card.",
        "The ONNX model accepts images of any size, and is checked against PyTorch at three sizes. With --size it "
        "accepts one image of one size, which more runtimes can read (OpenCV 4).",
    )
    export.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)
    path(export, "--method", _METHOD_FILE, False)
    export.add_argument(
        "--onnx",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="file to write (default: MODEL with the suffix .onnx, or -WIDTHxHEIGHT.onnx)",
    )
    export.add_argument(
        "--size", type=positive, nargs=2, metavar=("WIDTH", "HEIGHT"), help="the only size to accept (default: any)"
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
    text = "folder of images with source and target side by side, instead of --data, without a check that they are"
    path(new_suite, "--pairs", text, False)
    new_suite.add_argument(
        "--hours",
        type=above_zero,
        metavar="H",
        help="time for all trainings together (default: 8 on a CPU, 24 on a GPU)",
    )
    new_suite.add_argument(
        "--device", choices=["cpu", "cuda"], help="device to write the suite for (default: a GPU if there is one)"
    )
    new_suite.add_argument("--force", action="store_true", help="overwrite an existing file")

    bench = verb(
        "bench",
        verbs.bench,
        "Benchmark training steps, inference and the way from file to file against plain PyTorch and the device limit.",
        "Plain PyTorch is a straightforward implementation of the same networks and losses.",
    )
    suite(bench)
    bench.add_argument("--entry", nargs="+", metavar="NAME", help="entries of the suite (default: all)")
    bench.add_argument(
        "--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="size of the images (default: the suite's sizes)"
    )
    bench.add_argument(
        "--part",
        nargs="+",
        choices=["inference", "training", "translate"],
        help="parts to time; translate: from image file to image file (default: inference and training)",
    )
    bench.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="precisions to time (default: fp32, and the others that the device computes natively); speed-ups are "
        "relative to plain PyTorch in the first of fp32, tf32 and bf16 that is timed",
    )
    bench.add_argument("--repeats", type=positive, default=10, metavar="N", help="timed passes (default: 10)")
    bench.add_argument(
        "--budget",
        type=above_zero,
        metavar="SECONDS",
        help="begin no network after this time (default: no limit); inference of all networks comes first, what is "
        "timed is kept, and the same command continues",
    )
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
        "--precision", choices=PRECISIONS, default="fp32", help="precision to compute in (default: fp32)"
    )
    profile.add_argument(
        "--way",
        choices=["plain", "engine"],
        default="engine",
        help="plain: plain PyTorch, a straightforward implementation; engine: this project's optimised path "
        "(default: engine)",
    )
    profile.add_argument(
        "--predict",
        metavar="DEVICE",
        help="measure nothing, but foretell the time of each operation on a device whose limits are known: h100, or a "
        "CSV that 'msgunet bench' wrote there",
    )
    profile.add_argument(
        "--repeats", type=positive, metavar="N", help="timed passes or steps (default: 10 passes, 3 steps)"
    )
    profile.add_argument(
        "--rows", type=positive, default=20, metavar="N", help="rows to print of each table (default: 20)"
    )
    path(profile, "--out", "CSV to write, with all rows", False)
    compute(profile)

    report = verb("report", results.report, "Make the tables, figures and page of a suite from the results so far.")
    suite(report)
    share = verb(
        "share",
        results.share,
        "Copy the redistributable results of a suite into a folder that is small enough to commit.",
        "These are the tables, figures, numbers and the suite itself; images only if the data set's licence allows it.",
    )
    suite(share)
    path(share, "--out", "folder to write (default: results/gpu/DEVICE/SUITE or results/cpu/DEVICE/SUITE)", False)
    share.add_argument("--weights", action="store_true", help="copy the generators, too")
    verify = verb(
        "verify",
        results.verify,
        "Check the results of a suite against its files, or your own run of a suite against somebody's shared results.",
        "For a suite: checksums, and all metrics again from the images. For a folder that 'msgunet share' wrote: each "
        "row of metrics is equal, within the tolerance that devices and training noise explain, or different. The exit "
        "status is 0 if everything agrees, and 2 otherwise, with a line on each difference.",
    )
    verify.add_argument(
        "suite", metavar="SUITE", help="name of a suite in config/, path of a .yaml file, or folder of shared results"
    )
    verify.add_argument(
        "--images",
        type=positive,
        default=0,
        metavar="N",
        help="also translate N test images of each run again with its generator (default: none); of shared results, "
        "only this is done, with the shared generators",
    )
    path(verify, "--out", "CSV to write, with every row of shared results and your own", False)
    explain = verb(
        "explain",
        results.explain,
        "Explain a number of Table 1: its files, its formula, and the value again.",
        "The exit status is 2 if the value is not the recorded one. Example: msgunet explain demo msgunet psnr",
    )
    explain.add_argument("suite", help="name of a suite in config/, or path of a .yaml file")
    explain.add_argument("entry", metavar="ENTRY", help="name of a method's entry in the suite")
    explain.add_argument("metric", metavar="METRIC", help="one of the suite's metrics, such as psnr")
    explain.add_argument("image", nargs="?", metavar="IMAGE", help="id of a test image (default: the mean over all)")
    show = verb("show", results.show, "Print Table 1 of a suite, and the location of its page.")
    suite(show)

"""The function of each verb. Each one imports its packages only when it is called, to keep the command fast."""

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.core.paths import ARCHIVES, WEIGHTS
from msgunet.core.text import printable

if TYPE_CHECKING:
    from msgunet.core.settings import MachineSettings


def command_of(options: Any) -> str:
    return shlex.join(["msgunet", *options.arguments])


def _machine(options: Any) -> "MachineSettings":
    from msgunet.core.files import read_settings
    from msgunet.core.settings import MachineSettings

    return MachineSettings() if options.compute is None else read_settings(options.compute, MachineSettings)


def check(options: Any) -> None:
    from msgunet.suite.plan import load_plan
    from msgunet.suite.preflight import check, downloads, rehearse

    plan = load_plan(options.suite)
    if options.gpu:
        _check_gpu(plan)
        return
    for line in rehearse(plan):
        print(line)
    check(plan, remote=options.cluster)
    for line in downloads(plan):
        print(line)
    exception = ", except for GPUs" if options.cluster and plan.suite.compute.gpu_required else ""
    print(f"suite {plan.name}: {len(plan.runs)} runs; this machine meets their requirements{exception}")


def _check_gpu(plan: Any) -> None:
    from msgunet.cost.check_device import check_device, gpu
    from msgunet.suite.networks import trained_networks

    problems = []
    for line, advice in check_device(trained_networks(plan), gpu()):
        print(f"{'WRONG' if advice else 'ok':5}  {line}", flush=True)
        if advice:
            problems.append(f"{line}: {advice}")
    if problems:
        raise UserError(*problems)


def plan(options: Any) -> None:
    if options.changes:
        _changes(options)
        return
    from msgunet.suite.forecast import plan_table
    from msgunet.suite.plan import load_plan

    if sum(given is not None for given in (options.speed, options.rate, options.predict)) > 1:
        raise UserError("--speed, --rate and --predict are three ways to know the speed; give one of them")
    limits = None
    if options.predict is not None:
        from msgunet.device.limits import read_limits

        limits = read_limits(options.predict)
    print(plan_table(load_plan(options.suite), options.speed, options.rate, limits, command_of(options)).text())


def _changes(options: Any) -> None:
    from msgunet.suite.changes import changes
    from msgunet.suite.plan import load_plan

    print(printable("\n".join(changes(load_plan(options.suite), options.suite))))


def status(options: Any) -> None:
    from msgunet.suite.plan import load_plan
    from msgunet.suite.status import status_table

    print(status_table(load_plan(options.suite), command_of(options)).text())


def prepare(options: Any) -> None:
    from msgunet.core.files import read_settings
    from msgunet.core.settings import DataSetSettings
    from msgunet.data.prepare import prepare
    from msgunet.data.registry import get_dataset

    if (options.name is None) == (options.settings is None):
        raise UserError("give either the name of a data set or --settings dataset.json")
    if options.settings is not None:
        if options.size:
            raise UserError("--size needs the name of a data set; with --settings, that file sets the size")
        settings = read_settings(options.settings, DataSetSettings)
    else:
        settings = get_dataset(options.name).default_settings(options.size)
    archives = options.mirror or _machine(options).archives(settings.kind)[0]
    prepare(settings, options.out, archives, options.threads)


def fetch(options: Any) -> None:
    from msgunet.data.fetch import fetch
    from msgunet.data.overview import published
    from msgunet.methods.weights import WEIGHTS as REMOTES

    machine, others = _machine(options), {key: (remote,) for key, remote in REMOTES.items()}
    weights = {remote.name for remote in REMOTES.values()}
    # Look up all names first, so that a wrong one is reported before any download.
    for remote in [remote for name in options.name for remote in published(name, machine, others)]:
        fetch(remote, options.out or (WEIGHTS if remote.name in weights else ARCHIVES))


def data(options: Any) -> None:
    from msgunet.data.overview import check_data, overview

    if options.action and not options.name:
        raise UserError("name the data set to check: msgunet data check NAME")
    machine = _machine(options)
    for line in check_data(options.name, machine) if options.action else overview(machine):
        print(line)


def train(options: Any) -> None:
    from msgunet.core.attempts import refuse_again
    from msgunet.core.files import read_settings
    from msgunet.core.settings import RunSettings
    from msgunet.training.loop import saved_so_far, train

    if options.attempt > 1:
        refuse_again(options.out, "train", read_settings(options.run, RunSettings))
    machine = _machine(options)
    try:
        train(options.run, options.out, machine, Path(machine.vgg19), options.data, options.wait)
    except KeyboardInterrupt:
        # Before the first step, or a second Ctrl-C.
        text = f"interrupted; {saved_so_far(options.run, options.out)}"
        raise InterruptedTraining(text, signal.SIGINT) from None


def evaluate(options: Any) -> None:
    from msgunet.core.files import read_settings
    from msgunet.core.settings import EvaluationSettings
    from msgunet.evaluation.evaluate import evaluate

    settings = EvaluationSettings()
    if options.settings is not None:
        settings = read_settings(options.settings, EvaluationSettings)
    machine = _machine(options)
    evaluate(options.run, options.generator, options.out, settings, machine, options.data, options.jobs, machine)


def ablate(options: Any) -> None:
    from msgunet.evaluation.ablation import ablate

    ablate(options.run, options.generator, options.out, _machine(options), options.data)


def cost(options: Any) -> None:
    from msgunet.core.files import read_settings
    from msgunet.core.frames import read_frame
    from msgunet.core.settings import NetworkList
    from msgunet.cost.count import cost
    from msgunet.report.costs import cost_table
    from msgunet.suite.plan import load_plan

    machine, titles = _machine(options), {}
    if options.settings is not None:
        networks = read_settings(options.settings, NetworkList)
    else:
        plan = load_plan(options.suite)
        networks, titles = plan.networks, plan.titles
        machine = machine if options.compute else plan.machine
    cost(networks, options.out, machine, options.counts_only)
    if networks.networks:
        print(cost_table(read_frame(options.out), titles, command_of(options)).text())


def bench(options: Any) -> None:
    from msgunet.cost.bench import PARTS, bench
    from msgunet.report.figures import write_speed_figure
    from msgunet.report.speed import speed_table
    from msgunet.suite.networks import trained_networks
    from msgunet.suite.plan import load_plan

    plan = load_plan(options.suite)
    runs = trained_networks(plan, options.entry, options.size and tuple(options.size))
    machine = _machine(options) if options.compute else plan.machine
    parts, out = options.part or PARTS, options.out or plan.results / "speed.csv"
    frame = bench(runs, out, machine, parts, options.precision, options.repeats, options.compile, options.budget)
    table = speed_table(frame, plan.titles, command_of(options))
    if options.out is None:
        table.write(out.parent)
        write_speed_figure(frame, plan.titles, out.parent)
    print(table.text())


def profile(options: Any) -> None:
    from msgunet.cost.profile import profile
    from msgunet.cost.variants import Variant
    from msgunet.report.profile import profile_tables
    from msgunet.suite.networks import trained_networks
    from msgunet.suite.plan import load_plan

    plan = load_plan(options.suite)
    runs = trained_networks(plan, options.entry and [options.entry], options.size and tuple(options.size))
    if len(runs) != 1:
        choices = [f"  --entry {run.entry} --size {run.size[0]} {run.size[1]}" for run in runs]
        raise UserError(f"choose one of {len(runs)} networks of suite '{plan.name}':", *choices)
    if options.predict is not None:
        _predict(options, plan, runs[0])
        return
    variant = Variant(options.way, options.precision)
    machine = _machine(options) if options.compute else plan.machine
    frame = profile(runs[0], options.part, variant, machine, options.repeats, options.out)
    for table in profile_tables(frame, plan.titles, options.rows, command_of(options)):
        print(table.text())


def _predict(options: Any, plan: Any, settings: Any) -> None:
    from msgunet.cost.predict import predict
    from msgunet.device.limits import read_limits
    from msgunet.report.predict import predict_table

    if options.way != "engine" or options.repeats is not None:
        raise UserError("--predict counts the engine's operations and measures nothing; omit --way and --repeats")
    limits = read_limits(options.predict)
    frame = predict(settings, options.part, options.precision, limits, options.out)
    subject = (
        f"{plan.titles[settings.entry]} at {settings.size[0]}×{settings.size[1]}, {options.part}, {options.precision}"
    )
    print(predict_table(frame, subject, limits, options.rows, command_of(options)).text())


def tables(options: Any) -> None:
    from msgunet.report.tables import write_tables

    write_tables(options.settings, options.results)


def figures(options: Any) -> None:
    from msgunet.report.figures import write_figures

    write_figures(options.settings, options.results)


def page(options: Any) -> None:
    from msgunet.report.page import write_page

    write_page(options.settings, options.results)


def new_suite(options: Any) -> None:
    from msgunet.new_suite.discover import discover
    from msgunet.new_suite.write import new_suite

    discovery = discover(options.data, options.source, options.target, options.pairs)
    print(new_suite(options.suite, discovery, options.hours, options.device, options.force))


def export(options: Any) -> None:
    from msgunet.core.files import write_text
    from msgunet.methods.generator import load_generator
    from msgunet.report.model_card import card_path, model_card
    from msgunet.translation.export import export_onnx

    size = options.size and tuple(options.size)
    suffix = "-{}x{}.onnx".format(*size) if size else ".onnx"
    out = options.onnx or options.model.with_name(options.model.stem + suffix)
    card = card_path(out)
    generator = load_generator(options.model, "cpu", method_file=options.method)
    notes = export_onnx(generator, out, size)
    write_text(card, model_card(generator, options.model, out, notes, size))
    print(f"{out}, with its model card {card}")


def translate(options: Any) -> None:
    from msgunet.translation.files import translate_files
    from msgunet.translation.translate import load

    memory = options.memory and options.memory * 1e9
    model = load(options.model, options.device, options.precision, memory, options.threads, options.method)
    flags = {"keep_format": options.keep_format, "resume": options.resume, "jobs": options.jobs}
    count = translate_files(model, options.images, options.out, options.scale, options.tile, **flags)
    print(f"{count} image{'s' if count != 1 else ''} translated to {options.out}")

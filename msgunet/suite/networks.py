"""The networks of a suite, for the cost table, `msgunet bench` and `msgunet profile`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgunet.core.errors import UserError
from msgunet.core.settings import Network, RunSettings
from msgunet.methods.registry import method_of
from msgunet.suite.grid import grids, suggest_entry

if TYPE_CHECKING:
    from msgunet.suite.plan import Plan


def networks_of(runs: Sequence[RunSettings]) -> list[Network]:
    """Return the networks of the cost table.

    These are the generator of every trained entry, at every size of the suite at which it can be built (`used`: the
    suite trains it at this size), and the discriminators and VGG-19, at the sizes of the trainings that use them.
    """
    sizes = sorted({run.size for run in runs}, key=lambda size: size[0] * size[1])
    used = {(run.entry, run.size) for run in runs}
    generators, discriminators, perceptual = [], [], {}
    for settings in {run.entry: run for run in runs}.values():
        method = method_of(settings)
        if not method.trainable:
            continue
        options = method.Options.model_validate(settings.options)
        for size in sizes:
            if method.problem(options, size) is not None:
                continue
            generator = Network(
                entry=settings.entry,
                part="generator",
                method=settings.method,
                version=settings.version,
                file=settings.file,
                code=settings.code,
                size=size,
                options=settings.options,
                channels=settings.channels,
                used=(settings.entry, size) in used,
            )
            generators.append(generator)
            if generator.used and method.has_discriminator(options):
                discriminators.append(generator.model_copy(update={"part": "discriminator"}))
            if generator.used and settings.perceptual is not None:
                width = {"width": settings.perceptual.width}
                perceptual[size] = Network(entry="vgg19", part="perceptual", size=size, options=width, used=True)
    return [*generators, *discriminators, *perceptual.values()]


def trained_networks(
    plan: "Plan", entries: Sequence[str] | None = None, size: tuple[int, int] | None = None
) -> list[RunSettings]:
    """Return one run for each trained entry and size of a suite; `size` overrides the sizes of the suite.

    Raises:
        UserError: the suite does not train a requested entry, or an entry cannot be built at this size.

    """
    trained = [run.settings for run in plan.runs if run.trainable]
    known = list(dict.fromkeys(settings.entry for settings in trained))
    stand_for = {name: grid.entries for name, grid in grids(plan.suite.methods).items()}
    problems = [
        f"--entry {name}: suite '{plan.name}' does not train it; {suggest_entry(name, known, stand_for)}"
        for name in entries or ()
        if name not in known
    ]
    networks: dict[Any, RunSettings] = {}
    for settings in trained:
        if entries and settings.entry not in entries:
            continue
        at = settings if size is None else settings.model_copy(update={"size": size})
        method = method_of(at)
        if problem := method.problem(method.Options.model_validate(at.options), at.size):
            problems.append(f"{at.entry}: {problem}")
        networks.setdefault((at.entry, at.size), at)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return list(networks.values())

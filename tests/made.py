"""Fake results of a suite that was never trained: all files that the report reads, with random numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from conftest import make_data, make_image
from PIL import Image

from msgunet.core.metrics import PAPERS
from msgunet.suite.plan import Plan, load_plan

# Markup of every format: figures, Markdown, LaTeX, HTML, templates.
EVIL = r"""_y_ *x* $\frac{$ `c` | <script>alert("1")</script> &amp; {{ 7*7 }} {n} %s '-- 中😀"""
EVIL_DESCRIPTION = f"# {EVIL} [a](b) https://x_y.org"
_FACTS = {
    "commit": "0" * 12,
    "device": "a processor",
    "threads": 1,
    "versions": {"torch": "2", "piq": "0"},
    "steps": 4,
    "seconds": 2.0,
    "finished": "2026-01-01T00:00:00+00:00",
    "trained": "2026-01-01T00:00:00+00:00",
    "protocols": ["native", "full"],
}


def make_plan(folder: Path, size: tuple[int, int] = (128, 64), **changes) -> Plan:
    """Write a suite in `folder` and return its plan.

    It has two methods and `mean`. One method works at half the size, and its title tries to inject markup.
    """
    narrow = {"width": 0.0625, "discriminator_width": 0.0625}
    suite = {
        "description": EVIL_DESCRIPTION,
        "datasets": {"bluemarble": {"size": list(size)}},
        "methods": {
            "pix2pix": {"title": EVIL, "size": [size[0] // 2] * 2, "options": narrow},
            "msgunet": {"options": {**narrow, "scales": 2}},
            "mean": {},
        },
        "training": {"epochs": 1, "decay_epochs": 1},
        "perceptual": {"weights": "untrained"},
        "ablation": {"methods": ["msgunet"]},
        "report": {"examples": 2, "resamples": 200},
        **changes,
    }
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    load_plan.cache_clear()
    plan = load_plan(str(path))
    plan.write()
    return plan


def fill(plan: Plan, images: int = 8, without: tuple[str, ...] = ()) -> None:
    """Write the files that preparation, trainings and evaluations would write.

    The names of images look like numbers.

    Args:
        plan: the plan of the suite.
        images: the number of test images.
        without: runs that are not trained yet, as entry or entry/seed.

    """
    width, height = plan.data[0].entry.size
    for data in plan.data:
        make_data(data.folder, width, height, train=4, test=images, name="{:04d}".format)
    draw = np.random.default_rng(0)
    ids = [f"{i:04d}" for i in range(4, 4 + images)]
    for k, run in enumerate(plan.runs):
        if {run.settings.entry, f"{run.settings.entry}/{run.settings.seed}"} & set(without):
            continue
        metrics = plan.suite.evaluation.metrics
        facts = {"settings": run.settings.identity, "metrics": list(dict.fromkeys([*PAPERS, *metrics])), **_FACTS}
        for name in ("training.json", "evaluation.json", "ablation.json"):
            (run.folder / name).write_text(json.dumps(facts))
        (run.folder / "generator.safetensors").touch()
        steps = pd.DataFrame(
            {"step": [2, 4], "epoch": [1, 2], "learning_rate": 1e-4, "seconds": [1, 2], "gan": [2.0, 1.0]}
        )
        steps.to_csv(run.folder / "history.csv", index=False)
        rows = []
        for i, name in enumerate(ids):
            path = run.folder / "predictions" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            make_image(100 * k + i, *run.settings.size).save(path)
            for protocol in ("native", "full"):
                values = {"psnr": 20 + k + draw.normal(), "ssim": draw.uniform(), "vif": draw.uniform()}
                values |= {m: k / 4 + draw.uniform() / 8 for m in metrics if m not in values}
                rows.append({"id": name, "protocol": protocol, **values, "note": ""})
        pd.DataFrame(rows).to_csv(run.folder / "metrics.csv", index=False)
        cells = [
            {"id": name, "input_width": a, "input_height": a // 2, "output_width": b, "output_height": b // 2}
            for name in ids
            for a in (width // 2, width)
            for b in (width // 2, width)
        ]
        pd.DataFrame(cells).assign(ssim=draw.uniform(size=len(cells))).to_csv(run.folder / "ablation.csv", index=False)


def big_images(plan: Plan, images: int) -> None:
    """Do the same as `fill`, with many images of the data set's size; hard links store the pixels only once."""
    fill(plan, images=2)
    noise = np.random.default_rng(0).integers(
        0, 256, (plan.data[0].entry.size[1], plan.data[0].entry.size[0], 3), np.uint8
    )
    source = plan.results / "noise.png"
    Image.fromarray(noise).resize(plan.data[0].entry.size).save(source, compress_level=1)
    manifest = plan.data[0].folder / "manifest.csv"
    pairs = pd.read_csv(manifest)
    test = pairs[pairs["split"] == "test"].iloc[:1]
    names = [f"q{i:04d}" for i in range(images)]
    many = pd.concat([test] * images, ignore_index=True).assign(id=names)
    for role in ("source", "target"):
        many[role] = [f"test/{name}.{role}.png" for name in names]
        for path in many[role]:
            (plan.data[0].folder / path).hardlink_to(source)
    pd.concat([pairs[pairs["split"] == "train"], many]).to_csv(manifest, index=False)
    for run in plan.runs:
        metrics = pd.read_csv(run.folder / "metrics.csv").groupby("protocol").first()
        frames = [metrics.assign(id=name).reset_index() for name in names]
        pd.concat(frames).to_csv(run.folder / "metrics.csv", index=False)
        for name in names:
            (run.folder / "predictions" / f"{name}.png").hardlink_to(source)

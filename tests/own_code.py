"""The code of custom methods: the documented example, and the smallest method; and a suite that names it."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLE = re.search(r"```python\n(.*?)```", (DOCS / "own-method.md").read_text(encoding="utf-8"), re.S)[1]
# The minimal method that can be planned; it does not import torch.
SMALL = """
from msgunet import Method, register_method


@register_method("mine")
class Mine(Method):
    title = "Mine"
    build_generator = build_discriminator = generator_losses = discriminator_losses = lambda *_: None
"""
SUITE = {
    "datasets": {"bluemarble": {"size": [64, 64]}},
    "methods": {"mine": {"file": "my_method.py"}, "msgunet": {"options": {"width": 0.25}}},
}

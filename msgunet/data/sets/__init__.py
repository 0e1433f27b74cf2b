"""The data sets, one file each; `msgunet/data/registry.py` finds them by name."""

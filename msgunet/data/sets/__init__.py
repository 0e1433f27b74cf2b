"""The data sets, one file each. `msgunet/data/registry.py` looks them up by name."""

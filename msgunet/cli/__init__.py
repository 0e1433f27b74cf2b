"""The `msgunet` command: a parser, and one verb for each stage. The top layer, which combines the other packages."""

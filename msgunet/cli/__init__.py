"""The `msgunet` command: a parser, and one verb for each stage. Puts the other wings together."""

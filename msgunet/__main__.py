"""`python -m msgunet`."""

import sys

from msgunet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

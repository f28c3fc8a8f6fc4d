"""`python -m qe_edge`, the same as `qe-edge`."""

import sys

from qe_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())

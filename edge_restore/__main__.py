"""``python -m edge_restore``: the command line, where the console script is not on the path."""

import sys

from edge_restore.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m kevents``."""

import sys

from kevents._cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m kevents``."""

import sys

from kevents._cli.main import main

if __name__ == "__main__":
    sys.exit(main())

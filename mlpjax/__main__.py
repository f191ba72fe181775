"""``python -m mlpjax`` is the command ``mlpjax``."""

import sys

from mlpjax.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m mmfusion`` is the ``mmfusion`` command; torchrun starts it so."""

import sys

from mmfusion.cli import main

if __name__ == "__main__":
    sys.exit(main())

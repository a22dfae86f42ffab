"""``python -m mmfusion`` is the ``mmfusion`` command; torchrun starts it so."""

import sys

from mmfusion.cli import main

sys.exit(main())

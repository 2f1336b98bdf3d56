"""``python -m consistency_lab.cli``."""

import sys

from consistency_lab.cli import main

sys.exit(main())

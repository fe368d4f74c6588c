"""``python -m bids_alphagan``."""

import sys

from bids_alphagan.cli import main

sys.exit(main())

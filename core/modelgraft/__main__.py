"""`python -m modelgraft` is the command `modelgraft`."""

import sys

from modelgraft.cli import main

sys.exit(main())

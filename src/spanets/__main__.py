"""`python -m spanets`: the command line."""

import sys

from spanets_cli import main

sys.exit(main())

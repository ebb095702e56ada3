"""`python -m spanets_cli`."""

import sys

from spanets_cli import main

sys.exit(main())

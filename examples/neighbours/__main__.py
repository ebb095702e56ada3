"""`python -m neighbours COMMAND ...`: the command line of `spanets`, neighbours registered."""

import sys

import neighbours  # noqa: F401, registers the models
from spanets_cli import main

sys.exit(main())

"""Runs a script or a module that only knows timm, with this package's models registered.

python -m spanets.timm train.py --model spanet_small --data-dir photos
python -m spanets.timm -m package.module ARGS...
"""

import os
import runpy
import sys
from typing import NoReturn

import spanets  # registers the models

USAGE = "usage: python -m spanets.timm SCRIPT.py [ARGS...], or -m MODULE [ARGS...]"


def run(words: list[str]) -> None:
    """Runs a program as `python SCRIPT ARGS...` or `python -m MODULE ARGS...` would.

    Args:
        words: The script, or "-m" and a module, and then its own arguments.
    """
    is_module = words[:1] == ["-m"]
    program, *arguments = words[is_module:] or [""]
    if program in ("-h", "--help"):
        print(f"{USAGE}\n{len(spanets.list_models())} models are registered with timm")
        return
    if not program:
        _refuse("no script is named")
    sys.argv = [program, *arguments]
    if is_module:
        sys.path[0] = os.getcwd()
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    if not os.path.isfile(program):
        _refuse(f"no such script: {program}")
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


def _refuse(reason: str) -> NoReturn:
    print(f"spanets.timm: {reason}; {USAGE}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    run(sys.argv[1:])

"""Runs a script or a module that only knows timm, with this package's models registered.

python -m spanets.timm train.py --model spanet_small --data-dir photos
python -m spanets.timm -m package.module ARGS...
"""

import os
import runpy
import sys

import spanets  # registers the models

USAGE = "usage: python -m spanets.timm SCRIPT.py [ARGS...], or -m MODULE [ARGS...]"


def run(words: list[str]) -> None:
    """Runs a program as `python SCRIPT ARGS...` or `python -m MODULE ARGS...` would.

    Args:
        words: The script, or "-m" and a module, and then its own arguments.
    """
    is_module = words[:1] == ["-m"]
    program, *arguments = words[is_module:] or [""]
    if not program or program in ("-h", "--help"):
        sys.exit(f"{USAGE}\n{len(spanets.list_models())} models are registered with timm")
    sys.argv = [program, *arguments]
    if is_module:
        sys.path[0] = os.getcwd()
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    if not os.path.isfile(program):
        sys.exit(f"spanets.timm: no such script: {program}; {USAGE}")
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1:])

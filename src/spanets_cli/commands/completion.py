"""`spanets completion`: the shell code that completes commands, options, models and keys."""

import argparse

from spanets_cli.output import say

HELP = "print the code that completes words in your shell"

EPILOG = """\
examples:
  eval "$(spanets completion bash)"                     this shell; or add the line to ~/.bashrc
  eval "$(spanets completion zsh)"                      likewise in ~/.zshrc, after compinit
  spanets completion fish > ~/.config/fish/completions/spanets.fish

Completed are commands, options and their values, models, recipes, recipe keys and files.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Prints the code."""
    from argcomplete import shellcode

    for line in shellcode(["spanets"], shell=arguments.shell).strip("\n").split("\n"):
        say(line)
    return 0

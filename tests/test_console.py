"""What a person at a terminal gets: headings, examples, tables, completion."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
from small_runs import call
from test_output import NASTY, acts

from spanets.recipe.documentation import keys_json
from spanets_cli.completing import KEYS
from spanets_cli.option_groups import GROUP_OF
from spanets_cli.output import print_table
from spanets_cli.parser import COMMANDS, make_parsers, split_overrides

STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_examples_that_parse(name):
    parser, _ = make_parsers()
    shown = COMMANDS[name].EPILOG.splitlines()
    assert shown[0] == "examples:"
    examples = [line for line in shown if line.startswith("  spanets ")]
    assert examples
    for line in examples:
        command, *_ = re.split(" {2,}", line.strip())  # a remark may follow
        words = shlex.split(command)[1:]
        words = split_overrides(words)[0] if name == "train" else words
        parser.parse_args(words[: words.index(">")] if ">" in words else words)


def test_each_heading_has_an_option():
    _, commands = make_parsers()
    options = {name for parser in commands for act in parser.added for name in act.option_strings}
    # Options in mutually exclusive groups are added by the groups.
    known = options | {name for parser in commands for name in parser.format_help().split()}
    assert set(GROUP_OF) <= known


def test_help_on_a_terminal_says_the_same(terminal):
    with redirect_stdout(terminal):
        for parser in make_parsers()[1]:
            parser.print_help()
    drawn = terminal.getvalue()
    assert STYLE.search(drawn)
    plain = "".join(parser.format_help() for parser in make_parsers()[1])
    assert STYLE.sub("", drawn).lower().split() == plain.lower().split()


@pytest.mark.parametrize("text", [*NASTY, "[bold red]no markup[/]", "a" * 300])
def test_a_table_on_a_terminal(terminal, text):
    """Cells are the same words, and no text of a cell acts on the terminal."""
    with redirect_stdout(terminal):
        print_table(("name", "value", "note"), [(text, "1.5", "fine"), ("b", "20", "")])
    plain = STYLE.sub("", terminal.getvalue())
    assert not acts(plain.replace("\n", ""))
    assert all(len(line) <= 120 for line in plain.splitlines())
    for word in ("name", "value", "note", "1.5", "20", "fine"):
        assert word in plain


def test_no_color(terminal, monkeypatch):
    """Bold type may stay: it is no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(terminal):
        print_table(("name", "note"), [("a", "b")])
    assert set(STYLE.findall(terminal.getvalue())) <= {"\x1b[0m", "\x1b[1m"}


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stdout(terminal):
        print_table(("name", "note"), [("a", "b")])
    assert terminal.getvalue() == "name  note\na     b\n"


def complete(line: str, folder) -> list[str]:
    answer = folder / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
    }
    command = [sys.executable, "-m", "spanets_cli"]
    subprocess.run(command, env={**os.environ, **asked}, cwd=folder, check=True, timeout=60)
    return [word.strip() for word in answer.read_text("utf-8").split("\n")]


@pytest.mark.parametrize(
    "line, some, not_there",
    [
        ("spanets mo", {"models"}, "predict"),
        ("spanets train el", {"elpv"}, "photos"),
        ("spanets train elpv --optim.cool", {"--optim.cooldown_epochs"}, "--optim.lr"),
        ("spanets train masks --data.layout ", {"folder", "ade20k"}, "imagenet"),
        ("spanets predict spanet_s", {"spanet_small"}, "spanet_base"),
        ("spanets eval my", {"my.ckpt"}, "spanet_small"),
        ("spanets bench x --ro", {"--rounds"}, "--batch"),
    ],
)
def test_completion(line, some, not_there, tmp_path):
    (tmp_path / "my.ckpt").touch()
    found = complete(line, tmp_path)
    assert some <= set(found)
    assert not_there not in found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_for_a_shell(shell, capsys):
    status, printed, said = call(capsys, "completion", shell)
    assert (status, said) == (0, "")
    assert "_ARGCOMPLETE" in printed
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=printed, text=True, check=True)


def test_keys_for_completion_are_those_of_the_recipes():
    assert KEYS.read_text("utf-8") == keys_json(), "run `make docs-keys`"
    assert json.loads(KEYS.read_text("utf-8"))

"""What is printed: text of files cannot act on a terminal, and a lost output is no fault."""

import io
import json
import os
import re
import sys
import unicodedata
import warnings
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import call
from tqdm import tqdm

import spanets_cli
from spanets_cli.output import OutputLostError, print_json, print_table, say, say_described, tell
from spanets_cli.streams import SafeStream, safe_streams
from spanets_runtime.markdown import code_block, code_span, escape_markdown
from spanets_runtime.terminal import COLOUR, COLOUR_CODE, RESET_CODE
from spanets_runtime.text import escape_controls, escape_values, shorten

NASTY = [
    "\x1b[2J\x1b[31mred",
    "a\nspanets: all is well",
    "\rforged",
    "a\x85b\u2028c\u2029d",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "\x9b31m",
    "\x7f\x08\x08",
    "tab\there",
    "\udcff.png",
]


def acts(text: str) -> list[str]:
    """Characters that a terminal obeys, by Unicode's own classes."""
    kept = {"LRM", "RLM", "ALM"}
    bidi = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"} - kept
    return [
        c
        for c in text
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in bidi
    ]


# ---- escapes


@given(st.text())
def test_nothing_that_acts_is_left_and_all_else_is_as_it_was(text):
    shown = escape_controls(text)
    assert acts(shown) == []
    assert escape_controls(shown) == shown
    if not acts(text):
        assert shown == text


def test_escapes_are_pythons():
    assert escape_controls("a\n\x1b\u202e\udcff\té") == r"a\n\x1b\u202e\udcff\té"
    assert escape_controls("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"
    assert escape_values({"a\n": [{"b": ("\x1b", 1)}, None]}) == {
        r"a\n": [{"b": [r"\x1b", 1]}, None]
    }
    assert shorten("x" * 200, 10) == "x" * 9 + "…"


# ---- the streams


@given(st.lists(st.text()))
def test_whatever_is_written_only_our_line_ends_act(texts):
    memory = io.StringIO(newline="")
    stream = SafeStream(memory)
    for text in texts:
        assert stream.write(text) == len(text)
    assert set(acts(memory.getvalue())) <= {"\n", "\t", "\r"}
    assert memory.getvalue().count("\r") <= len(texts)  # at the beginning of a write alone


def test_what_an_encoding_lacks_is_escaped():
    for encoding in ("ascii", "latin-1", "utf-16"):
        memory = io.BytesIO()
        stream = SafeStream(io.TextIOWrapper(memory, encoding, errors="strict"))
        stream.write("é日\n")
        stream.flush()
        assert not stream.lost
        wanted = {"ascii": r"\xe9\u65e5", "latin-1": r"é\u65e5", "utf-16": "é日"}[encoding]
        assert memory.getvalue().decode(encoding) == f"{wanted}\n"


def test_a_bar_moves():
    memory = io.StringIO(newline="")
    for _ in tqdm(range(3), file=SafeStream(memory), desc="a\x1b[2J", mininterval=0, leave=False):
        pass
    written = memory.getvalue()
    assert written.count("\r") >= 4
    assert "\x1b" not in written
    assert r"a\x1b[2J: 100%" in written


def test_a_bar_has_its_colour_and_no_other():
    memory = io.StringIO(newline="")
    file, name = SafeStream(memory), "a\x1b[31m"
    for _ in tqdm(range(3), name, file=file, mininterval=0, leave=False, ncols=60, colour=COLOUR):
        pass
    written = memory.getvalue()
    assert COLOUR_CODE in written
    assert written.count(COLOUR_CODE) <= written.count(RESET_CODE)
    assert "\x1b" not in written.replace(COLOUR_CODE, "").replace(RESET_CODE, "")
    file.write(f"{COLOUR_CODE}no bar")
    assert memory.getvalue().endswith(r"\x1b[36mno bar")


def test_streams_are_put_back_and_warnings_stay_on_their_line(capsys):
    before = sys.stdout, sys.stderr, warnings.formatwarning
    with safe_streams() as output:
        sys.stdout.write("a\x1b")
        # pytest has put a `showwarning` of its own in the place of Python's, which prints this.
        sys.stderr.write(warnings.formatwarning(UserWarning("a\nb\x1b"), UserWarning, "f.py", 7))
        assert not output.lost
    assert before == (sys.stdout, sys.stderr, warnings.formatwarning)
    out, err = capsys.readouterr()
    assert (out, err) == ("a\\x1b", "f.py:7: UserWarning: a\\nb\\x1b\n")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_stays_on_its_line(name, capsys):
    say(name)
    tell(f"note: {name}")
    print_table(("name", "n"), [(name, "1"), ("b", "2")])
    say_described(
        lambda r: "\n".join(["head", *(f"{k}: {v}" for k, v in r["iou"].items())]),
        {"iou": {name: name}},
    )
    out, err = capsys.readouterr()
    assert len(out.split("\n")) == 1 + 3 + 2 + 1
    assert set(acts(out + err)) == {"\n"}
    assert err.count("\n") == 1
    _, header, first, second, *_ = out.split("\n")
    assert header.index("n", 4) == first.rindex("1") == second.rindex("2") or name == NASTY[-1]


# ---- names in files


@pytest.fixture(scope="module")
def nasty_checkpoint(small_run, tmp_path_factory):
    """A classifier whose classes have names that no one should have."""
    content = torch.load(small_run / "last.ckpt", weights_only=True)
    content["spanets"]["classes"] = [NASTY[0], NASTY[1]]
    path = tmp_path_factory.mktemp("nasty") / "a.ckpt"
    torch.save(content, path)
    return path


def test_classes_and_files_of_any_name_are_shown(nasty_checkpoint, photos, tmp_path, capsys):
    image = tmp_path / "a\n\x1b[31m\u202e.png"
    image.write_bytes((photos / "cat/0.png").read_bytes())
    bad = tmp_path / "bad\r\n.png"
    bad.write_bytes(b"no image")
    status, printed, said = call(capsys, "predict", nasty_checkpoint, image, bad)
    assert status == 1
    assert printed.count("\n") == said.count("\n") == 1
    assert set(acts(printed + said)) == {"\n"}
    assert r"a\n\x1b[31m\u202e.png: " in printed
    assert r"\x1b[2J\x1b[31mred" in printed
    assert r"bad\r\n.png: not an image" in said
    # For machines names are exact.
    _, printed, _ = call(capsys, "predict", nasty_checkpoint, image, "--json")
    (row,) = json.loads(printed)
    assert row["image"] == str(image)
    assert {found["label"] for found in row["predictions"]} == set(NASTY[:2])
    assert printed.isascii()


def test_words_of_the_command_line_are_shown(refused):
    for name in NASTY[:-1]:
        assert acts(refused(2, "train", f"{name}.yaml")) == []
        assert acts(refused(2, "models", "a", name)) == []
        assert acts(refused(2, name)) == []


# ---- model cards

markup = st.text("`*_[]()<>|#-!\\\n\r\x1b abc~$&:@{}", max_size=30)


@given(markup)
def test_a_code_span_holds_its_text(text):
    span = code_span(text)
    assert "\n" not in span
    fence = re.match("`+", span)[0]
    inner = span[len(fence) : -len(fence)]
    assert fence not in re.findall("`+", inner)
    stripped = inner[1:-1] if inner[0] == inner[-1] == " " and inner.strip(" ") else inner
    assert stripped == (escape_controls(text) or " ")


@given(markup)
def test_a_block_of_code_holds_its_text(text):
    first, *lines, last = code_block(text, "yaml").split("\n")
    assert first == f"{last}yaml"
    assert all(last not in line for line in lines)
    assert set(acts("".join(lines))) == set()


@given(markup)
def test_plain_text_in_markdown_has_no_markup(text):
    shown = escape_markdown(text)
    assert acts(shown) == []
    assert re.findall(r"(?<!\\)(?:\\\\)*[`*_\[\]<>|#]", shown) == []


def test_a_model_card_shows_names_as_they_are(nasty_checkpoint, tmp_path, capsys):
    assert call(capsys, "push", nasty_checkpoint, "--to", tmp_path / "a<b>`c`")[0] == 0
    info = (tmp_path / "a<b>`c`" / "README.md").read_text("utf-8")
    assert set(acts(info)) == {"\n"}
    assert "\n# a\\<b\\>\\`c\\`\n" in info
    assert r"2: `\x1b[2J\x1b[31mred`, `a\nspanets: all is well`." in info


# ---- an output that is closed or full


@pytest.mark.parametrize(
    "write", [say, print_json, lambda value: print_table(["a"], [[str(value)]])]
)
def test_writers_say_that_the_output_is_lost(write, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SafeStream(None))
    with pytest.raises(OutputLostError):
        write(1)


def sinks(kind: str, number: int) -> None:
    """Puts a standard stream where nothing can be written, as a shell does before a start."""
    stream = {1: "stdout", 2: "stderr"}[number]
    if kind == "closed":
        with suppress(OSError):  # it is already
            os.close(number)
        setattr(sys, stream, None)
        return
    if kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    else:
        there, here = os.pipe()
        os.close(there)
        os.dup2(here, number)
    setattr(sys, stream, os.fdopen(number, "w", closefd=False, buffering=number % 2 or -1))


KINDS = [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("closed", "full")), "pipe"]
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@needs_full
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_nobody_reads(kind, process, small_run, photos):
    """Each command is quiet and answers with status 1; a usage error keeps its own."""
    predict = ["predict", str(small_run / "last.ckpt"), str(photos / "cat")]
    lines = [
        (["--help"], 1),
        (["--version"], 1),
        (["train", "--help"], 1),
        (["models", "spanet_nano"], 1),
        (["models", "spanet_nano", "--json"], 1),
        (["train", "elpv", "--print-recipe"], 1),
        (predict, 1),
        ([*predict, "--json"], 1),
        (["runs", str(small_run)], 1),
    ]

    def run() -> int:
        for words, status in [*lines, (["bogus"], 2)]:
            sinks(kind, 1)
            found = spanets_cli.main(words)
            assert found == status, f"{words}: {found}"
        return 0

    status, printed, said = process(run).wait()
    assert (status, printed) == (0, ""), said
    assert said.startswith("spanets: unknown command 'bogus'")
    assert said.count("\n") == 1


@needs_full
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_output_that_nobody_reads(kind, process, small_recipe, tmp_path):
    """A note does not end up in the output, and a run goes on to its end."""
    out = tmp_path / "run"

    def run() -> int:
        sinks(kind, 2)
        assert spanets_cli.main(["bogus"]) == 2
        assert spanets_cli.main(["train", "elvp"]) == 2
        words = ["--seed", "1", "--seed", "2", "--out", str(out)]
        return spanets_cli.main(["train", small_recipe, *words])

    status, printed, _ = process(run).wait()
    assert status == 0
    assert printed.startswith("\ntest_resnet, ")
    assert (out / "results.json").exists()


def test_a_file_is_not_opened_where_the_output_was(process, tmp_path):
    """What C code writes to standard output would else end up in it."""

    def run() -> int:
        os.close(1)
        sys.stdout = None
        with safe_streams() as output:
            descriptor = os.open(tmp_path / "data", os.O_CREAT | os.O_WRONLY)
            os.write(1, b"lost")
            return int(descriptor == 1 or not output.lost)

    assert process(run).wait()[0] == 0
    assert (tmp_path / "data").read_bytes() == b""

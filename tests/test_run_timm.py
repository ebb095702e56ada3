"""`python -m spanets.timm`: scripts that only know timm find the models."""

import runpy
import subprocess
import sys
from importlib import import_module

import pytest

import spanets


def run(*words: str, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spanets.timm", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_a_script_finds_the_models_its_arguments_and_its_neighbours(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'spanet_nano'\n")
    (tmp_path / "script.py").write_text(
        "import sys, timm, beside\n"
        "assert __name__ == '__main__'\n"
        "print(timm.is_model(beside.NAME), sys.argv[1:])\n"
    )
    done = run(str(tmp_path / "script.py"), "--model", "x")
    assert done.stdout.strip() == "True ['--model', 'x']", done.stderr
    done = run("-m", "script", "y", cwd=tmp_path)
    assert done.stdout.strip() == "True ['y']", done.stderr


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-m", "--help"]])
def test_help(words, capsys):
    runpy.run_module("spanets.timm")["run"](words)
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m spanets.timm SCRIPT.py")
    assert not err


def test_no_script(capsys):
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("spanets.timm")["run"]([])
    assert "no script is named; usage:" in capsys.readouterr().err


def test_a_missing_script():
    done = run("absent.py")
    assert done.returncode == 2
    assert done.stderr.startswith("spanets.timm: no such script: absent.py; usage:")
    assert done.stderr.count("\n") == 1


def test_the_module_hides_no_name_of_the_package():
    import_module("spanets.timm")
    assert spanets.list_models()

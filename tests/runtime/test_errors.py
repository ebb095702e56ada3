import importlib.metadata
import sys
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from spanets_runtime import errors
from spanets_runtime.errors import UsageError, UserError, first_line, require


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb", r"a\r\nb"),
        ("a\vb", r"a\x0bb"),
        ("a\u2028b", r"a\u2028b"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("é日本", "é日本"),
    ],
)
@pytest.mark.parametrize("kind", [UserError, UsageError])
def test_a_message_is_one_line_whatever_names_are_in_it(kind, name, shown):
    assert str(kind(f"{name}: unknown")) == f"{shown}: unknown"


def test_of_a_librarys_message_the_first_line_is_taken():
    assert first_line(ValueError("\n wrong\nat length")) == "wrong"
    assert first_line(KeyError()) == "KeyError"


@pytest.fixture
def installed(monkeypatch):
    """Makes a package appear in one version."""

    def install(name: str, version: str) -> None:
        monkeypatch.setattr("importlib.metadata.version", lambda _: version)
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        errors._describe_outdated.cache_clear()

    yield install
    errors._describe_outdated.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "needed"),
    [
        ("onnxscript", "0.1.0", ">=0.7.2"),
        ("faster_coco_eval", "1.5.9", ">=1.6"),
        ("lightning", "2.6.2", "!=2.6.2,!=2.6.3,>=2.6"),
    ],
)
def test_a_version_that_is_not_served_is_told(installed, name, old, needed):
    installed(name, old)
    distribution = name.replace("_", "-")
    with pytest.raises(UserError) as caught:
        require(name, "x")
    assert str(caught.value) == (
        f"{distribution} {old} is installed, {needed} is needed; "
        "run: pip install --upgrade 'spanets[x]'"
    )
    installed(name, "99.0.0.dev1")
    assert require(name, "x").__name__ == name


def test_an_old_version_is_told_before_its_import_fails(monkeypatch, installed):
    def fail(_: str) -> None:
        raise AttributeError("module 'torch' has no attribute 'x'")

    installed("onnxscript", "0.1")
    monkeypatch.setattr(errors, "import_module", fail)
    with pytest.raises(UserError, match=r"onnxscript 0\.1 is installed, >=0\.7\.2 is needed"):
        require("onnxscript", "export")
    installed("onnxscript", "99.0")
    with pytest.raises(AttributeError):
        require("onnxscript", "export")


def test_every_dependency_has_a_lower_bound():
    for line in importlib.metadata.requires("spanets"):
        requirement = Requirement(line)
        bounds = {bound.operator for bound in requirement.specifier}
        assert requirement.name == "spanets" or ">=" in bounds, line

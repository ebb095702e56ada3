import pytest

from spanets_runtime.errors import UsageError, UserError, first_line


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

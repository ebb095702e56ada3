import pytest

from spanets_runtime.errors import UsageError, UserError, first_line


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "a\vb", "a\u2028b"])
@pytest.mark.parametrize("kind", [UserError, UsageError])
def test_a_message_is_one_line_whatever_names_are_in_it(kind, name):
    assert str(kind(f"{name}: unknown")) == "a b: unknown"


def test_of_a_librarys_message_the_first_line_is_taken():
    assert first_line(ValueError("\n wrong\nat length")) == "wrong"
    assert first_line(KeyError()) == "KeyError"

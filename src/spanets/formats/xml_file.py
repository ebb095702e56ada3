"""Reads XML without entities, document types or more than a bounded size."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from spanets_runtime.errors import UserError
from spanets_runtime.reading import read_file

MAX_XML = 2**28
"""Largest size of an XML file in bytes; its tree takes about ten times as much memory."""


class _Refused(Exception):
    """The file declares a document type."""


class _Found(Exception):
    """The first element; its name is the message."""


class _First:
    """Stops at the first element, before any content."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Raises the name of the element."""
        raise _Found(tag)


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refuses a document type, which is where entities are declared."""
        raise _Refused


def read_xml(path: Path) -> ElementTree.Element:
    """Reads an XML file.

    Raises:
        UserError: it is missing, too large, no XML, or declares a document type or entities.
    """
    try:
        parser: Any = ElementTree.XMLParser(target=_Builder())
        parser.feed(read_file(path, MAX_XML))
        return parser.close()
    except _Refused:
        raise UserError(f"{path}: declares a DOCTYPE, which is not read; remove it") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path}: is not XML ({error})") from None


def root_tag(path: Path) -> str:
    """Returns the name of the first element, from the first bytes of a file, or ""."""
    parser: Any = ElementTree.XMLParser(target=_First())
    try:
        with path.open("rb") as file:
            parser.feed(file.read(2**14))
    except _Found as found:
        return str(found)
    except (OSError, ElementTree.ParseError, LookupError, ValueError):
        pass
    return ""

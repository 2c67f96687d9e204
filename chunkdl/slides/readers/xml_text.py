"""Reading the XML in a slide's header, which may be from a stranger."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

MAX_XML_CHARACTERS = 64 * 2**20
MOST_MARKUP = 2**19
"""Elements and attributes, of which each takes some hundred bytes when it is parsed."""


def parse_xml(text: str) -> ElementTree.Element:
    """The root of the document.

    Args:
        text: the document; what follows a NUL character is not part of it.

    Raises:
        ValueError: it is not XML, longer than 64 Mi characters, of more than 524,288 elements and
            attributes, or defines a document type or entities, with which a few lines can become
            gigabytes.
    """
    if len(text) > MAX_XML_CHARACTERS:
        raise ValueError(f"XML of {len(text)} characters; at most {MAX_XML_CHARACTERS} are read")
    document = text.partition("\0")[0].lstrip("\ufeff \t\r\n")
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("XML that defines a document type or entities is not read")
    if document.count("<") + document.count("=") > MOST_MARKUP:
        raise ValueError(f"XML of more than {MOST_MARKUP} elements and attributes is not read")
    # The text is decoded already; a parser that is given text must not see another encoding named.
    if document.startswith("<?xml"):
        document = document.partition("?>")[2]
    try:
        return ElementTree.fromstring(document)  # noqa: S314, see above
    except ElementTree.ParseError as error:
        raise ValueError(f"the XML in the file cannot be read: {error}") from error


def local_name(element: ElementTree.Element) -> str:
    """The name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def named(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """The children of that name, whatever their namespace."""
    return [child for child in element if local_name(child) == name]


def text_at(element: ElementTree.Element, *names: str) -> str:
    """The text of the first element at that path, empty where there is none."""
    for name in names:
        below = named(element, name)
        if not below:
            return ""
        element = below[0]
    return (element.text or "").strip()

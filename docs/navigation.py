"""Lists the pages of docs/decisions under their heading, so that a new one needs no other change.

MkDocs calls `on_config`; it is named as a hook in mkdocs.yml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Put the numbered pages behind the index of the section."""
    folder = Path(config["docs_dir"], "decisions")
    pages = [f"decisions/{page.name}" for page in sorted(folder.glob("[0-9]*.md"))]
    for entry in config["nav"]:
        if "Decisions" in entry:
            entry["Decisions"].extend(pages)
    return config

"""JSON schemas of the configuration file and of device profiles, for editors that complete and check while typing.

`python -m edge_agent.settings.editor > config/agent.schema.json` writes the first anew, with `profile` before the `>` the
other one, `config/profile.schema.json`. A field's docstring becomes its
description here, read from the source: pydantic could do that itself, but at every start of the agent, and took half
of the time from its start to its first read.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from edge_agent.configfile import Section
from edge_agent.settings.profile_schema import ProfileFile
from edge_agent.settings.schema import AgentFile

_TITLES: Final[Mapping[type[Section], str]] = {
    AgentFile: "Guardwatch agent",
    ProfileFile: "Guardwatch device profile",
}


def editor_schema(file: type[Section] = AgentFile) -> str:
    """The schema of a kind of file as JSON text (2020-12), keys in a stable order."""
    schema = file.model_json_schema()
    sections = {model.__name__: model for model in _sections(Section)}
    for name, definition in [(file.__name__, schema), *schema.get("$defs", {}).items()]:
        if name in sections:
            for field, text in _field_docstrings(sections[name]).items():
                definition["properties"].get(field, {}).setdefault("description", text)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _TITLES[file],
        **schema,
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The sections of this package; other programs name theirs alike."""
    for child in model.__subclasses__():
        if child.__module__.startswith("edge_agent.settings."):
            yield child
            yield from _sections(child)


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the fields of a section and of the sections that it extends."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, Section) or owner.__module__ == "pydantic.main":
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError):
            continue  # made at run time: its fields carry their own descriptions
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match text:
                    case ast.Expr(ast.Constant(str() as docstring)):
                        found[field.target.id] = inspect.cleandoc(docstring)
    return found


if __name__ == "__main__":
    sys.stdout.write(editor_schema(ProfileFile if sys.argv[1:] == ["profile"] else AgentFile))

"""JSON schema of the configuration file, for editors that complete and check while typing.

`python -m edge_agent.settings.editor > config/agent.schema.json` writes it anew.
"""

from __future__ import annotations

import json
import sys

from edge_agent.settings.schema import AgentFile


def editor_schema() -> str:
    """The schema as JSON text (2020-12), keys in a stable order."""
    schema = AgentFile.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Guardwatch agent",
        **schema,
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(editor_schema())

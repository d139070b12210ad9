"""Configuration files for people: YAML in, plain data or a list of problems out, each with file, line and column.

Shared by agent, gateway and simulators. Use, in this order (each step gives its result or *all* its problems):

    document = load(path, os.environ)            # Document | list[Problem]: YAML 1.2, ${ENV}, no duplicate keys
    settings = validate(FileModel, document)     # FileModel | list[Problem]: pydantic, strict, no unknown keys
    secret = read_secret(document, ("mqtt", "password_file"))      # str | Problem
    ...cross-checks: document.problem(path, what, mend) makes a positioned Problem, `in_order(problems)` sorts them

- `document.data` is plain data (dict, list, str, int, float, bool, None). Keys are always text: `{18: x}` has the key
  "18". A *path* is a tuple of keys and indices, e.g. `("devices", "plc1", "unit")` or `("routes", 0, "via")`.
- `document.value_position(path)` and `.key_position(path)` give (line, column), counted from 1. A path that does not
  exist gets the position of its nearest existing ancestor, so positions are always there.
- `document.resolve(text)` makes a path that stands in the file relative to the file.
- File models derive from `Section` (strict, `extra="forbid"`, frozen, no NaN). Values are validated as JSON: enums,
  `Path` and tuples take text and lists. A validator refuses a value by `raise fault("what is wrong", "how to mend it")`.
- `with collection_paused():` around building a large plan saves most of its time.
- `load_table(path, text_columns=…)` reads a CSV beside the file as a document of `{"rows": [{column: value}, …]}`.
- Secrets stand in files named by `*_file` keys, or come as `${NAME}`; text from the environment is never echoed.

`str(problem)` is `FILE:LINE:COL: what is wrong — how to mend it`. Nothing here raises for anything a file can hold.

Source: the outside contract, sections 1 and 2; YAML 1.2.2, section 10.3 (core schema).
"""

from edge_agent.configfile.collecting import collection_paused
from edge_agent.configfile.document import Document, PathKey, Plain, load, parse
from edge_agent.configfile.fields import Section, fault
from edge_agent.configfile.problem import Problem, in_order
from edge_agent.configfile.secret import read_secret
from edge_agent.configfile.table import load_table
from edge_agent.configfile.validation import validate, validate_partly

__all__ = [
    "Document",
    "PathKey",
    "Plain",
    "Problem",
    "Section",
    "collection_paused",
    "fault",
    "in_order",
    "load",
    "load_table",
    "parse",
    "read_secret",
    "validate",
    "validate_partly",
]

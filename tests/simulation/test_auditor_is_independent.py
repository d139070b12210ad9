"""An auditor that asked the rules and alarms what is right would agree with their every mistake."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
JUDGES = (
    "edge_agent.domain.rule",
    "edge_agent.domain.held",
    "edge_agent.domain.guard",
    "gateway.domain.alarm",
)


@pytest.mark.parametrize(
    "name",
    [
        path.stem
        for path in [*HERE.glob("*audit*.py"), HERE / "looks.py", HERE / "whole.py"]
        if "test" not in path.stem
    ],
)
def test_it_imports_nothing_that_judges(name: str) -> None:
    tree = ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [item.name for node in ast.walk(tree) if isinstance(node, ast.Import) for item in node.names]
    assert imported
    assert [module for module in imported if module.startswith(JUDGES)] == []

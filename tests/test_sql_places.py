"""Where SQL stands: repositories hold it, the event log and the queue hold theirs, and one file writes each table."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from moorage_api.database import Base
from moorage_api.migrations import tables

API = Path(tables.__file__).parent.parent
HOLDERS = {"database.py", "events/log.py", "runs/queue.py"}
"""Files beside the repositories: the version of the server, the event log and the queue."""

SQL = re.compile(r"\b(SELECT\s|INSERT INTO\s|UPDATE\s+\w+\s.*\bSET\s|DELETE FROM\s|SHOW\s+\w+$)", re.DOTALL)
WRITE = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
ROWS = {mapper.class_.__name__: str(mapper.local_table) for mapper in Base.registry.mappers}
TABLES = set(ROWS.values())


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in API.rglob("*.py"):
        place = str(path.relative_to(API))
        if not place.startswith("migrations/"):
            yield place, ast.parse(path.read_text())


def texts_of(tree: ast.Module) -> Iterator[str]:
    """All string constants, those of f-strings included, but no docstrings of modules, classes and functions."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    documented = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    docstrings = {id(node.body[0].value) for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def uses_sqlalchemy_for_queries(tree: ast.Module) -> bool:
    """Whether the file imports more than errors and the types of connections."""
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return any(module.startswith("sqlalchemy") for module in modules - {"sqlalchemy.exc", "sqlalchemy.ext.asyncio"})


def tables_written_by(tree: ast.Module) -> set[str]:
    """Tables that the file changes: named in the text of SQL, or by a call such as `insert(Row)` or `Row(...)`."""
    written = {name for text in texts_of(tree) for name in WRITE.findall(text)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            changed = node.args[:1] if node.func.id in ("insert", "update", "delete") else [node.func]
            written |= {ROWS[name.id] for name in changed if isinstance(name, ast.Name) and name.id in ROWS}
    return written & TABLES


def is_holder(place: str) -> bool:
    return place in HOLDERS or Path(place).name == "repository.py"


def test_sql_stands_in_repositories_the_log_and_the_queue_alone() -> None:
    with_sql = {place for place, tree in sources() if any(SQL.search(text) for text in texts_of(tree))}
    assert with_sql >= HOLDERS, "the search finds no SQL where there is some"
    assert {place for place in with_sql if not is_holder(place)} == set()


def test_queries_are_built_in_repositories_the_log_and_the_queue_alone() -> None:
    built = {place for place, tree in sources() if uses_sqlalchemy_for_queries(tree)}
    assert {place for place in built if not is_holder(place) and Path(place).name != "models.py"} == set()


def test_one_file_writes_each_table() -> None:
    writers: dict[str, list[str]] = defaultdict(list)
    for place, tree in sources():
        for table in tables_written_by(tree):
            writers[table].append(place)
    assert set(writers) == TABLES, "a table that no file writes, or a search that misses its writer"
    assert {table: places for table, places in writers.items() if len(places) > 1 or not is_holder(places[0])} == {}

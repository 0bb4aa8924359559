"""Rows for every table of a database, made from its columns alone, so that tables of later migrations get rows, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from sqlalchemy import Column, Connection, MetaData, Table

Row = Mapping[str, Any]

REALISTIC: Mapping[str, str] = {
    "users.role": "admin",
    "users.status": "active",
    "sessions.status": "running",
    "runs.status": "running",
    "events.type": "message",
    "model_calls.outcome": "started",
    "session_skills.phase": "active",
}
"""Words that have a meaning to the product. A column with a CHECK constraint needs a value here."""

DOCUMENT = {
    "role": "assistant",
    "content": "Hafen ⚓ \u2028 \U0001f4c4",
    "deep": [{"n": 2**53 + 1, "f": 0.1, "none": None}],
}
NOON = datetime(2026, 3, 29, 12, 0, 0, 123456, tzinfo=UTC)

BY_TYPE: Sequence[tuple[type[Any], Callable[[str, int], Any]]] = [
    (sa.Uuid, lambda name, number: uuid5(NAMESPACE_OID, f"{name} {number}")),
    (sa.Boolean, lambda _name, _number: True),
    (sa.Integer, lambda _name, number: 1_000 + number),
    (sa.Numeric, lambda _name, number: Decimal(number) + Decimal("0.000001")),
    (sa.DateTime, lambda _name, number: NOON + timedelta(days=number)),
    (sa.JSON, lambda _name, number: {**DOCUMENT, "number": number}),
    (sa.LargeBinary, lambda _name, number: bytes([0, 255, number % 256])),
]


def reflect(connection: Connection) -> list[Table]:
    """The tables that the database has now, each after the tables that it refers to."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def read_rows(connection: Connection) -> dict[str, list[Row]]:
    """All rows of all tables, by the table's name."""
    return {
        table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
        for table in reflect(connection)
    }


def add_rows(connection: Connection, *, batch: int) -> None:
    """Add two rows to each table: one with a value in each column, as long as it may be, and one with the fewest."""
    tables = reflect(connection)
    for number, is_full in ((2 * batch, True), (2 * batch + 1, False)):
        added: dict[str, Row] = {}
        for table in tables:
            values = {
                column.name: _value(column, number, added)
                for column in table.columns
                if column.identity is None and (is_full or _is_needed(column))
            }
            row = connection.execute(table.insert().values(values).returning(*table.columns)).mappings().one()
            added[table.name] = dict(row)


def _is_needed(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None


def _value(column: Column[Any], number: int, added: Mapping[str, Row]) -> Any:
    """A value that no other row has, or that of the row of this batch to which the column refers."""
    for key in column.foreign_keys:
        return added[key.column.table.name][key.column.name]
    name = f"{column.table.name}.{column.name}"
    if name in REALISTIC:
        return REALISTIC[name]
    if isinstance(column.type, sa.String):
        length = column.type.length or 20_000
        return f"{number} {column.name} ".ljust(length, "ö")[:length]
    for kind, make in BY_TYPE:
        if isinstance(column.type, kind):
            return make(name, number)
    raise NotImplementedError(f"{name} has the type {column.type!r}: add a value for it to BY_TYPE in {__name__}")

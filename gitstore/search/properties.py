"""What a resource is by itself, as SQL: its type, id and time, the words in it, and where it is."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence

from gitstore.errors import Invalid, Issue
from gitstore.search.filters import Near, Updated, Words
from gitstore.search.rows import TYPE_NUMBERS
from gitstore.search.sql import FALSE, TRUE, Sql, among, either, every, sql
from gitstore.search.versions import sequence_before

_EARTH = 6371.0088
"""Mean radius in kilometres."""
_DISTANCE = "git_fhir_distance"
_WORDS = {"narrative": "w.narrative", "content": "w.content"}


def typed(column: str, types: Iterable[str]) -> Sql:
    """The number in the column is that of one of the types."""
    return among(column, sorted({TYPE_NUMBERS[type] for type in types if type in TYPE_NUMBERS}))


def updated(connection: sqlite3.Connection, filter: Updated, column: str) -> Sql:
    """The sequence in the column is that of a commit of such a time.

    An instant is an interval of one microsecond. https://hl7.org/fhir/R4/search.html#date
    """
    low, high = (sequence_before(connection, instant) for instant in (filter.low, filter.high))
    from_low, from_high = sql(f"{column} > {{}}", low), sql(f"{column} > {{}}", high)
    to_low, to_high = sql(f"{column} <= {{}}", low), sql(f"{column} <= {{}}", high)
    match filter.comparison:
        case "eq" | "ap":
            return every([from_low, to_high])
        case "ne":
            return either([to_low, from_high])
        case "gt" | "sa":
            return from_high
        case "lt" | "eb":
            return to_low
        case "ge":
            return from_low if filter.low <= filter.high else from_high
        case "le":
            return to_high


def matched(connection: sqlite3.Connection, filter: Words) -> Sql:
    """SELECT of the resources that have the words. Raises Invalid for a query that FTS5 doesn't take."""
    query = sql(
        f"SELECT t.resource FROM words w CROSS JOIN texts t ON t.key = w.rowid WHERE {_WORDS[filter.column]} MATCH {{}}",
        filter.query,
    )
    try:
        connection.execute(f"{query.text} LIMIT 1", query.values).fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        message = f"`{filter.query[:80]}` can't be searched for: {error}."
        raise Invalid(Issue("error", "value", message)) from error
    return query


def near(connection: sqlite3.Connection, filter: Near, alias: str) -> Sql:
    """The position in the row of `alias` is that near. https://hl7.org/fhir/R4/location.html#positional"""
    if (
        connection.execute("SELECT 1 FROM pragma_function_list WHERE name = ?", (_DISTANCE,)).fetchone()
        is None
    ):
        connection.create_function(_DISTANCE, 4, distance, deterministic=True)
    angle = filter.kilometres / _EARTH
    # A little more than enough, as the distance itself is rounded.
    reach = math.degrees(angle) * (1 + 1e-9) + 1e-9
    south, north = filter.latitude - reach, filter.latitude + reach
    column, longitudes = f"{alias}.longitude", TRUE
    if south > -90 and north < 90:
        # Elsewhere a pole is within reach, and with it every longitude.
        wide = (
            math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(filter.latitude)))))
            * (1 + 1e-9)
            + 1e-9
        )
        longitudes = either(
            sql(
                f"{column} BETWEEN {{}} AND {{}}",
                filter.longitude + turn - wide,
                filter.longitude + turn + wide,
            )
            for turn in (-360, 0, 360)
        )
    return sql(
        f"{alias}.latitude BETWEEN {{}} AND {{}} AND {{}} AND"
        f" {_DISTANCE}({{}}, {{}}, {alias}.latitude, {column}) <= {{}}",
        south,
        north,
        longitudes,
        filter.latitude,
        filter.longitude,
        filter.kilometres,
    )


def distance(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Kilometres between two positions in degrees, on a sphere; exact also for small ones."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    across = math.radians(other_longitude - longitude)
    square = (
        math.sin((other_phi - phi) / 2) ** 2 + math.cos(phi) * math.cos(other_phi) * math.sin(across / 2) ** 2
    )
    return 2 * _EARTH * math.asin(min(1.0, math.sqrt(square)))


def of_time(alias: str, types: Sequence[int] | None, time: Sql) -> Sql:
    """SELECT of resources by the index on their time."""
    numbers = list(TYPE_NUMBERS.values()) if types is None else types
    return sql(
        f"SELECT {alias}.key AS resource FROM resources {alias} WHERE {{}} AND {alias}.deleted = 0 AND {{}}",
        among(f"{alias}.type", numbers),
        time,
    )


def by_id(types: Sequence[int] | None, ids: tuple[str, ...]) -> Sql:
    """SELECT of the resources with these ids."""
    numbers = list(TYPE_NUMBERS.values()) if types is None else types
    return sql(
        "SELECT key AS resource FROM resources WHERE {} AND {}", among("type", numbers), among("id", ids)
    )


NONE = sql("SELECT 0 AS resource WHERE {}", FALSE)
"""SELECT of nothing."""

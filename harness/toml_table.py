"""A table of a TOML file, read strictly: everything that is wrong with it is told at once."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
D = TypeVar("D")


class Table:
    """Takes values out of a table, keeps every problem, and knows what nobody asked for.

    A value that is missing or wrong is a problem, and stands as something of its type.
    """

    def __init__(
        self, values: Mapping[str, Any], prefix: str = "", problems: list[str] | None = None
    ) -> None:
        self.values = values
        self.prefix = prefix
        self.problems: list[str] = [] if problems is None else problems
        self._asked: set[str] = set()

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self._take(key, str, "a string")
        if not isinstance(value, str):
            return ""
        if not value or (pattern is not None and not pattern.fullmatch(value)):
            expected = f" (expected {pattern.pattern})" if pattern else ""
            self.problems.append(f"{self.prefix}{key} is {value!r}{expected}")
        return value

    def texts(self, key: str, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
        value = self._take(key, list, "a list of strings")
        if not isinstance(value, list):
            return ()
        if not value or not all(isinstance(item, str) and item for item in value):
            self.problems.append(f"{self.prefix}{key} must be a list of strings, none empty")
            return ()
        for item in value:
            if pattern is not None and not pattern.fullmatch(item):
                self.problems.append(
                    f"{self.prefix}{key} has {item!r} (expected {pattern.pattern})"
                )
        return tuple(value)

    def choice(self, key: str, allowed: tuple[T, ...], default: D) -> T | D:
        """One of a few values; `default` where the key is not there."""
        if not self.has(key):
            return default
        value: object = self.values[key]
        for one in allowed:
            if value == one and type(value) is type(one):
                return one
        known = ", ".join(repr(one) for one in allowed)
        self.problems.append(f"{self.prefix}{key} is {value!r}, it must be one of {known}")
        return default

    def positive(self, key: str) -> int:
        value = self._take(key, int, "a whole number")
        if not isinstance(value, int):
            return 0
        if value < 1:
            self.problems.append(f"{self.prefix}{key} is {value}, it must be 1 or more")
        return value

    def amount(self, key: str) -> float:
        """A number that is 0 or more, and finite."""
        value = self._take(key, (int, float), "a number")
        if not isinstance(value, int | float):
            return 0.0
        if not 0 <= value <= sys.float_info.max:
            self.problems.append(f"{self.prefix}{key} is {value}, it must be 0 or more and finite")
            return 0.0
        return float(value)

    def flag(self, key: str) -> bool:
        self._asked.add(key)
        value: object = self.values.get(key)
        if not isinstance(value, bool):
            self.problems.append(f"{self.prefix}{key} must be true or false")
        return value is True

    def has(self, key: str) -> bool:
        """Whether an optional key is there."""
        self._asked.add(key)
        return key in self.values

    def table(self, key: str) -> Table:
        value = self._take(key, dict, "a table")
        return Table(
            value if isinstance(value, dict) else {}, f"{self.prefix}{key}.", self.problems
        )

    def refuse_unknown(self) -> None:
        self.problems.extend(self._unknown())

    def _unknown(self) -> Iterator[str]:
        for key in self.values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                yield f"{self.prefix}{key} is not known{hint}"

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> object:
        self._asked.add(key)
        if key not in self.values:
            self.problems.append(f"{self.prefix}{key} is missing")
            return None
        value: object = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.problems.append(f"{self.prefix}{key} must be {expected}")
            return None
        return value

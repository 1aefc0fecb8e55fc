"""From plain YAML values to typed dataclasses: types are read off the annotations, ranges off the fields.

A schema is a dataclass whose fields are numbers, text, booleans, lists, mappings, choices (`Literal`), unions of these
or further dataclasses. Every error names the key with its whole path, such as `search.epochs`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

import yaml

from quantnas_ext.errors import InputError, printable, shown, unknown_name

__all__ = ["build", "keys", "number", "read_yaml"]

Schema = TypeVar("Schema")

_DESCRIPTIONS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class _Range:
    """The values that a number may take; None stands for no limit on that side."""

    least: float | None
    most: float | None
    above: float | None
    below: float | None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)


def number(
    default: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field for a number with a range, checked by `build`.

    Args:
        default: The field's default; None where the field's type has it.
        least, most: Limits that are themselves allowed.
        above, below: Limits that are not.
    """
    return dataclasses.field(default=default, metadata={"range": _Range(least, most, above, below)})


def read_yaml(text: str) -> Any:
    """The plain values in a YAML text; no tag can make it run code.

    Raises:
        InputError: It is not YAML, says one key twice (plain YAML would silently keep the last), has a list or mapping
            for a key, or an alias (with which a short text can stand for an endless value).
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"not valid YAML ({line}{printable(str(error.problem)[:200])})") from error
    # PyYAML lets plain exceptions out where a text does not fit its tag, as in "!!bool maybe".
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"not valid YAML ({printable(reason[:200])})") from error


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses aliases, and a key written twice in one mapping."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node of a document; an alias is none."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(
                None, None, f"the alias '*{event.anchor}' has to be written out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a YAML node, each of whose keys has been seen once."""
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain name", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def keys(schema: type[Any], prefix: str = "") -> list[str]:
    """All keys of a schema with their paths, sections before what is in them: `search`, `search.epochs`, ..."""
    found = []
    for name, hint in typing.get_type_hints(schema).items():
        found.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            found += keys(typing.cast("type[Any]", hint), f"{prefix}{name}.")
    return found


def build(schema: type[Schema], values: Any, prefix: str = "") -> Schema:
    """An instance of a schema from the values that differ from its defaults.

    Args:
        schema: A dataclass of which every field has a default.
        values: A mapping as YAML gives it, or None for an empty one.
        prefix: The path that the schema's keys have in errors, with its dot: `"search."`.

    Raises:
        InputError: An unknown key, a value of another type, or a number out of its range.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        place = f"'{prefix.rstrip('.')}'" if prefix else "the whole"
        raise InputError(f"{place} must be a mapping of keys to values, not {shown(values)}")
    hints = typing.get_type_hints(schema)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise unknown_name("key", f"{prefix}{unknown[0]}", keys(schema, prefix))
    ranges = {f.name: f.metadata.get("range") for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
    arguments = {}
    for name, value in values.items():
        arguments[name] = checked = _convert(value, hints[name], prefix + name)
        limits = ranges[name]
        if limits is not None and checked is not None and checked not in limits:
            raise InputError(f"'{prefix}{name}' must be {limits}, not {shown(checked)}")
    return schema(**arguments)


def _convert(value: Any, hint: Any, key: str) -> Any:
    """A YAML value as a field's type wants it; raises `InputError` where it cannot be that."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _plain(value, key)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, f"{key}.")
    if origin is Literal:
        return _choice(value, arguments, key)
    if origin is list and isinstance(value, list | tuple):
        return [_convert(item, arguments[0], f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        names = {name: _convert(name, arguments[0], f"a key of {key}") for name in value}
        return {names[name]: _convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option, key)
            except InputError:
                continue
    converted = _finite(value) if hint is float else value
    if type(converted) is hint and not _is_huge(converted):  # not isinstance: true is no whole number
        return converted
    raise InputError(f"'{key}' must be {_description(hint)}, not {shown(value)}")


def _finite(value: Any) -> float | None:
    """A finite number, also from the text that YAML 1.1 makes of `1e-3`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        converted = float(value)
    except (ValueError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def _is_huge(value: Any) -> bool:
    """Whether it is a whole number beyond 64 bits, which nothing here can count with."""
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _choice(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    """One of the values of a `Literal`; YAML 1.1 reads a bare `no` as false, which is undone here."""
    if value is False and "no" in choices:
        value = "no"
    if value not in choices:
        raise unknown_name(f"value of '{key}':", value, choices)
    return value


def _plain(value: Any, key: str) -> Any:
    """A value of any type that YAML can hold and give back equal: tuples become lists.

    Raises:
        InputError: Something that YAML has no plain form for, such as a date or an object.
    """
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {_plain(name, f"a key of {key}"): _plain(item, f"{key}.{name}") for name, item in value.items()}
    if (
        value is None
        or (type(value) in (bool, int, str) and not _is_huge(value))
        or (type(value) is float and math.isfinite(value))
    ):
        return value
    raise InputError(f"'{key}' must be text, a number, true, false, null, a list or a mapping, not {shown(value)}")


def _description(hint: Any) -> str:
    """What a value of a type looks like, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"a list, each item {_description(arguments[0])}"
    if origin is dict:
        return "a mapping of names to values"
    if origin in (Union, types.UnionType):
        return " or ".join(_description(option) for option in arguments)
    return _DESCRIPTIONS[hint]

"""From plain YAML values to typed dataclasses: types are read off the annotations, ranges off the fields.

A schema is a dataclass whose fields are numbers, text, booleans, lists, mappings, choices (``Literal``), unions of
these or further dataclasses. A choice whose field has the metadata ``registry`` may also be a name in that. Every error
names the key with its whole path, such as ``search.epochs``.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import operator
import re
import sys
import types
import typing
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from quantnas_ext.errors import InputError, printable, shown, unknown_name

Schema = TypeVar("Schema")

_DESCRIPTIONS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


_LARGEST_FILE = 1_000_000  # bytes; configurations and options have some thousand

_NOT_AS_WRITTEN = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads as octal (``010`` is 8) or sexagesimal (``1:30`` is 90)."""


@dataclass(frozen=True)
class Written:
    """A number, a truth value or a date that YAML reads, and the text that stood there: ``010``, ``yes``."""

    value: Any
    text: str


_LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}
"""Of a number: how each is put in words, and how it is kept."""


def number(
    default: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    decides: bool = True,
) -> Any:
    """A dataclass field for a number with a range, checked by ``build``.

    ``least`` and ``most`` are themselves allowed, ``above`` and ``below`` are not; ``decides`` says whether the result
    of a run depends on it.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    given = {kind: limit for kind, limit in limits.items() if limit is not None}
    return dataclasses.field(default=default, metadata={"range": given, "decides": decides})


def read_yaml_file(path: Path, *, written: bool = False) -> Any:
    """The plain values in a YAML file in UTF-8, with or without a byte order mark, with any kind of line ends.

    Raises:
        InputError: the file cannot be read, is too large, is not text, or as ``read_yaml``. The sentence does not name
            the file.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"larger than {_LARGEST_FILE // 1_000_000} MB, which no such file is")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError("not a text file in UTF-8; save it in that encoding") from error
    return read_yaml(text, written=written)


def read_yaml(text: str, *, written: bool = False) -> Any:
    """The plain values in a YAML text; no tag can make it run code.

    Args:
        text: what stands in the file.
        written: give what is neither text nor quoted as ``Written``, for ``build``, which can then say how it was read.

    Raises:
        InputError: it is not YAML, says one key twice (plain YAML would silently keep the last), has a list or mapping
            for a key, or an alias (with which a short text can stand for an endless value).
    """
    try:
        return yaml.load(text, Loader=_WrittenLoader if written else _StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        if "'\\t'" in str(error.problem):
            raise InputError(f"not valid YAML ({line}a tab stands where only spaces may)") from error
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


class _WrittenLoader(_StrictLoader):
    """The strict loader that keeps the text of numbers, truth values and dates beside what YAML makes of them."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; an impossible date, such as 2024-13-45, is text."""
        kind = node.tag.rpartition(":")[2]
        if not isinstance(node, yaml.ScalarNode) or kind not in ("int", "float", "bool", "timestamp"):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        except ValueError:
            if kind != "timestamp":
                raise
            return node.value
        return Written(value, node.value) if node.style is None else value


def keys(schema: type[Any], prefix: str = "") -> list[str]:
    """All keys of a schema with their paths, sections before what is in them: ``search``, ``search.epochs``, ..."""
    found = []
    for name, hint in typing.get_type_hints(schema).items():
        found.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            found += keys(typing.cast("type[Any]", hint), f"{prefix}{name}.")
    return found


def build(schema: type[Schema], values: Any, prefix: str = "") -> Schema:
    """An instance of a schema from the values that differ from its defaults.

    Args:
        schema: a dataclass of which every field has a default.
        values: a mapping as YAML gives it, or None for an empty one.
        prefix: the path that the schema's keys have in errors, with its dot: ``"search."``.

    Raises:
        InputError: an unknown key, a value of another type, or a number out of its range.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        place = f"'{prefix.rstrip('.')}'" if prefix else "the whole"
        raise InputError(f"{place} must be a mapping of keys to values, not {shown(values)}")
    hints = typing.get_type_hints(schema)
    values = {_name(key): value for key, value in values.items()}
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise unknown_name("key", f"{prefix}{unknown[0]}", keys(schema, prefix))
    metadata = {f.name: f.metadata for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
    arguments = {}
    for name, value in values.items():
        if isinstance(value, str) and value in _registered(metadata[name].get("registry", "")):
            arguments[name] = value
            continue
        arguments[name] = checked = _convert(value, hints[name], prefix + name)
        limits = metadata[name].get("range", {})
        if checked is not None and not all(_LIMITS[kind][1](checked, limit) for kind, limit in limits.items()):
            right = " and ".join(f"{_LIMITS[kind][0]} {limit}" for kind, limit in limits.items())
            raise InputError(f"'{prefix}{name}' must be {right}, not {shown(checked)}")
    try:
        return schema(**arguments)
    except InputError as error:  # of a schema that checks itself, naming the field
        raise InputError(f"{prefix}{error}") from error


def _registered(registry: str) -> Container[str]:
    """What a program has added to a registry (``package.module.NAME``), for which it has loaded the module."""
    module, _, name = registry.rpartition(".")
    return getattr(sys.modules.get(module), name, ()) if name else ()


def _convert(value: Any, hint: Any, key: str) -> Any:
    """A YAML value as a field's type wants it; raises ``InputError`` where it cannot be that."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _plain(value, key)
    if isinstance(value, Written):
        value = _meant(value, hint, key)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, f"{key}.")
    if origin is Literal:
        return _choice(value, arguments, key)
    if origin is list and isinstance(value, list | tuple):
        return [_convert(item, arguments[0], f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
        return tuple(
            _convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, arguments, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        names = {name: _convert(name, arguments[0], f"a key of {key}") for name in value}
        return {names[name]: _convert(item, arguments[1], f"{key}.{names[name]}") for name, item in value.items()}
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option, key)
            except InputError:
                continue
    converted = _finite(value) if hint is float else value
    if type(converted) is hint and not _is_huge(converted):  # not isinstance: true is no whole number
        return converted
    empty = " (an empty value; give one or leave the key out)" if value is None else ""
    raise InputError(f"'{key}' must be {_description(hint)}, not {shown(value)}{empty}")


def _name(key: Any) -> Any:
    """The name that a key of a mapping stands for: as it was written."""
    return key.text if isinstance(key, Written) else key


def _meant(value: Written, hint: Any, key: str) -> Any:
    """What a value that is no text stands for in a field; refused where text, or another number, was meant."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if typing.get_origin(hint) is Literal:
        return value.text if value.text in typing.get_args(hint) else value.value
    if (str in options and type(value.value) not in options) or isinstance(value.value, datetime.date):
        raise InputError(f"'{key}' must be {_description(hint)}, not {_as_read(value)}{_quotes(value)}")
    _check_as_written(value, key)
    return value.value


def _check_as_written(value: Written, key: str) -> None:
    """Refuse a number that YAML 1.1 takes for another one than most readers do."""
    if isinstance(value.value, int | float) and _NOT_AS_WRITTEN.fullmatch(value.text):
        raise InputError(f"'{key}' is written {value.text}, which YAML reads as {value.value}; write {value.value}")


def _as_read(value: Written) -> str:
    """What was written and, where it differs, what YAML makes of it."""
    if isinstance(value.value, datetime.date):
        return f"the date {printable(value.text)}"
    read = str(value.value).lower() if isinstance(value.value, bool) else shown(value.value)
    return read if read == value.text else f"{printable(value.text[:100])}, which YAML reads as {read}"


def _quotes(value: Written) -> str:
    """How to write what is meant as text."""
    text = printable(value.text[:100])
    return f"; put it in quotes: '{text}' (on a command line \"'{text}'\")"


def _finite(value: Any) -> float | None:
    """A finite number, also from the text that YAML 1.1 makes of ``1e-3``; None for anything else."""
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
    """One of the values of a ``Literal``; YAML 1.1 reads a bare ``no`` as false, which is undone here."""
    if value is False and "no" in choices:
        value = "no"
    if value not in choices:
        raise unknown_name(f"value of '{key}':", value, choices)
    return value


def _plain(value: Any, key: str) -> Any:
    """A value of any type that YAML can hold and give back equal (no date, no object): tuples become lists."""
    quotes = ""
    if isinstance(value, Written):
        _check_as_written(value, key)
        if isinstance(value.value, datetime.date):
            quotes = _quotes(value)
        value = value.value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        named = {_plain(_name(name), f"a key of {key}"): item for name, item in value.items()}
        return {name: _plain(item, f"{key}.{name}") for name, item in named.items()}
    if (
        value is None
        or (type(value) in (bool, int, str) and not _is_huge(value))
        or (type(value) is float and math.isfinite(value))
    ):
        return value
    what = f"the date {value}" if isinstance(value, datetime.date) else shown(value)
    raise InputError(f"'{key}' must be text, a number, true, false, null, a list or a mapping, not {what}{quotes}")


def _description(hint: Any) -> str:
    """What a value of a type looks like, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"a list, each item {_description(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)} items, each {_description(arguments[0])}"
    if origin is dict:
        return "a mapping of names to values"
    if origin in (Union, types.UnionType):
        return " or ".join(_description(option) for option in arguments)
    return _DESCRIPTIONS[hint]

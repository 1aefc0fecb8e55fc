"""PyYAML's safe loader, but stricter, and with what stood in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Written:
    """A number, a truth value or a date that YAML reads, and the text that stood there: ``010``, ``yes``."""

    value: Any
    text: str


class StrictLoader(yaml.SafeLoader):
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


class WrittenLoader(StrictLoader):
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

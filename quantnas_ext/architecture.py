"""The architecture file: one small YAML that says all that is needed to build a found network again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from quantnas_ext.errors import InputError, about, shown, unknown_name
from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.files.paths import is_file, seen_from
from quantnas_ext.files.schema import read_yaml_file

if TYPE_CHECKING:
    from torch import nn

    from quantnas_ext.costs.cost import Cost
    from quantnas_ext.costs.counted import CountedCost
    from quantnas_ext.distribution.choices import Choice
    from quantnas_ext.quantization import Precision

FORMAT = "quantnas-architecture"
VERSION = 2
_SECTIONS = ("format", "version", "space", "choices", "costs", "provenance")  # version 1 has 'cost'


@dataclass(frozen=True)
class Architecture:
    """A network of a model space: the space, its arguments and every choice made in it.

    Attributes:
        space: name of the space (see ``quantnas_ext.spaces.SPACES``).
        arguments: arguments of the space.
        choices: NNI sample, label to value: each block's operation and each operation's precision.
        costs: what it costs, by name and input.
        provenance: where it comes from: configuration, seed, versions.
    """

    space: str
    arguments: dict[str, Any]
    choices: dict[str, Any]
    costs: tuple[CountedCost, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        space: str,
        arguments: Mapping[str, Any],
        choices: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        costs: Sequence[Cost] | None = None,
    ) -> Architecture:
        """An architecture with its costs counted: those given, or those of the space (``filed_costs``).

        Raises:
            InputError: when the choices do not make a network of this space.
        """
        from quantnas_ext.costs.counted import CountedCost

        bare = cls(space, dict(arguments), dict(choices), provenance=dict(provenance or {}))
        network = bare.build()
        wanted = filed_costs(space) if costs is None else costs
        return replace(bare, costs=tuple(CountedCost.of(cost, cost.of_network(network)) for cost in wanted))

    @property
    def cost(self) -> dict[str, float]:
        """The costs as numbers by their keys, such as ``bitops_32``, for tables and files of scores."""
        return {cost.key: cost.value for cost in self.costs}

    def build(self) -> nn.Module:
        """The concrete network, with fresh weights.

        Raises:
            InputError: when the choices do not make a network of this space.
        """
        from quantnas_ext.spaces import build_space

        self._check_choices()
        from nni.nas.space import model_context

        with model_context(self.choices):
            return build_space(self.space, self.arguments)

    def _check_choices(self) -> None:
        """Compare labels and values with those of the space."""
        from quantnas_ext.distribution.choices import ChoiceTree
        from quantnas_ext.spaces import build_space

        tree = ChoiceTree.of(build_space(self.space, self.arguments))
        known = {choice.label: choice for choice in tree}
        for label, value in self.choices.items():
            if label not in known:
                raise unknown_name(f"choice in an architecture of space {self.space!r}:", label, known)
            _check_value(known[label], value)
        for choice in tree:
            owners = choice.owners if choice.parent is None else (choice.parent,)
            needed = not owners or any(self.choices.get(label) == value for label, value in owners)
            if needed and choice.label not in self.choices:
                values = ", ".join(map(str, choice.values))
                raise InputError(f"the architecture lacks choice {choice.label!r}; give it one of {values}")

    def with_precision(self, precision: Precision | int | str) -> Architecture:
        """The same operations with every searched layer at one precision, costs counted anew.

        Layers whose precision the space's arguments fix keep it, but 32 means full precision in all of the network.
        """
        from quantnas_ext.distribution.choices import ChoiceTree
        from quantnas_ext.spaces import build_space

        arguments = arguments_at(self.space, self.arguments, precision)
        tree = ChoiceTree.of(build_space(self.space, arguments))
        # Every precision of that space has one value only.
        only = {choice.label: choice.values[0] for choice in tree if choice.kind == "precision"}
        choices = {label: only.get(label, value) for label, value in self.choices.items()}
        return Architecture.of(self.space, arguments, choices, self.provenance)

    def save(self, path: str | Path) -> None:
        """Write the file; an earlier one of that name is replaced as a whole."""
        from quantnas_ext.costs.counted import to_plain

        content = {
            "format": FORMAT,
            "version": VERSION,
            "space": {"name": self.space, "arguments": self.arguments},
            "choices": self.choices,
        }
        costs = {"costs": to_plain(self.costs)}
        text = _yaml(content) + _yaml(costs, flow=None) + _yaml({"provenance": self.provenance})
        with atomic_file(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @staticmethod
    def check_form(path: str | Path) -> None:
        """Check a file without its choices, for which its space would have to be built and torch to be loaded.

        Raises:
            InputError: when it is missing, no architecture file, or damaged.
        """
        _read(Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Read a file and check all of it.

        Raises:
            InputError: when the file is missing, no architecture file, damaged, of a later version, or names something
                that its space does not have.
        """
        from quantnas_ext.costs.counted import from_plain

        content = _read(Path(path))
        with about(f"architecture file '{path}'"):
            architecture = cls(
                space=content["space"]["name"],
                arguments=content["space"]["arguments"],
                choices=content["choices"],
                costs=from_plain(content["costs"]),
                provenance=content["provenance"],
            )
            architecture._check_choices()
        return architecture


def filed_costs(space: str) -> list[Cost]:
    """The costs in a space's architecture files: BitOps for its ``COST_INPUTS`` and bytes; without inputs none."""
    from quantnas_ext.costs.cost import BitOps, ParameterBytes
    from quantnas_ext.spaces import SPACES

    inputs = getattr(SPACES.get(space), "COST_INPUTS", ())
    return [*map(BitOps, inputs), *map(ParameterBytes, inputs[:1])]


def arguments_at(space: str, arguments: Mapping[str, Any], precision: Precision | int | str) -> dict[str, Any]:
    """The arguments of a space with every searched layer at one precision; 32 means all layers in full precision.

    Raises:
        InputError: when it is no precision, or the space has no argument for precisions.
    """
    from quantnas_ext.quantization import FULL_PRECISION_BITS, precision_choices
    from quantnas_ext.spaces.registry import SPACES, argument_names, pinned_precisions

    (value,) = precision_choices([precision])
    if space in SPACES and "bits" not in argument_names(space):
        raise InputError(f"space {space!r} has no argument 'bits', so its precision cannot be set; give it one")
    changed = {**arguments, "bits": [value]}
    if value == FULL_PRECISION_BITS:
        changed |= {name: value for name in pinned_precisions(space) if changed.get(name) is not None}
    return changed


def _read(path: Path) -> dict[str, Any]:
    """The file's content with its form checked."""
    if not is_file(path):
        raise InputError(
            f"architecture file '{path}' does not exist{seen_from(path)}; "
            "give the architecture.yaml of a search's run folder"
        )
    try:
        content = read_yaml_file(path)
    except InputError as error:
        raise InputError(
            f"'{path}' is not an architecture file ({error}); give the architecture.yaml of a run folder"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"'{path}' is not an architecture file; its first line should be 'format: {FORMAT}'")
    version = content.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:  # true is no version
        raise InputError(
            f"architecture file '{path}' has version {shown(version)}; this program reads versions up to {VERSION}"
        )
    if version == 1 and "costs" not in content:
        content["costs"] = content.pop("cost", None)
    for section in content:
        if section not in _SECTIONS:
            raise InputError(f"architecture file '{path}': {unknown_name('section', section, _SECTIONS)}")
    for section in _SECTIONS[2:]:
        kinds = (dict, list) if section == "costs" else dict
        if not isinstance(content.get(section), kinds):
            raise InputError(
                f"architecture file '{path}' lacks the section '{section}' or has something else in its place"
            )
    match content["space"]:
        case {"name": str(), "arguments": dict(arguments), **more} if not more:
            pass
        case _:
            raise InputError(f"architecture file '{path}': the section 'space' should have a name and arguments")
    for key in (*content["choices"], *arguments):
        if not isinstance(key, str):
            raise InputError(f"architecture file '{path}': key {shown(key)} should be a name")
    return content


def _check_value(choice: Choice, value: Any) -> None:
    """Refuse a value that a choice does not have; one of several values together is a list of distinct ones."""
    if choice.multiple is None:
        several, right = [value], True
    else:
        several = list(value) if isinstance(value, (list, tuple)) else []
        distinct = all(not _same(a, b) for index, a in enumerate(several) for b in several[:index])
        # The tree says 1 both for one value and for any number of them.
        right = distinct and (bool(several) if choice.multiple == 1 else len(several) == choice.multiple)
    if not right:
        values = ", ".join(map(str, choice.values))
        count = "different values" if choice.multiple == 1 else f"{choice.multiple} different values"
        raise InputError(
            f"value {shown(value)} of choice {choice.label!r} is not possible; give a list of {count} among {values}"
        )
    for item in several:
        if not any(_same(item, known) for known in choice.values):
            raise unknown_name(f"value of choice {choice.label!r}:", item, choice.values)


def _same(value: Any, other: Any) -> bool:
    """Whether two values are equal and of one type: for Python alone 4.0 is 4 and true is 1."""
    return type(value) is type(other) and bool(value == other)


def _yaml(content: dict[str, Any], *, flow: bool | None = False) -> str:
    """Text of some sections; libyaml writes it, where it is, ten times as fast."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(_plain(content), Dumper=dumper, sort_keys=False, width=120, default_flow_style=flow)
    return text


def _plain(value: Any) -> Any:
    """Dictionaries, lists and scalars only, as YAML's safe dumper takes them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

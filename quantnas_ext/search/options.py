"""The options of a search, each said here and nowhere else.

Strategy and evaluator take them, the search section of a configuration inherits them, the fingerprint of a checkpoint
holds them, and the page on configuration is tested against them. This module loads neither torch nor NNI, so that a
configuration is checked without them.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from quantnas_ext.arguments import flag, name_among, real_number, whole_number
from quantnas_ext.errors import InputError, shown
from quantnas_ext.files.schema import number


@dataclass(frozen=True)
class Options:
    """Numbers, flags and names that are checked when they are made, and kept as plain values.

    Raises:
        InputError: for a value of another kind or out of its range; the sentence begins with the option's name.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for option in fields(self):
            value = getattr(self, option.name)
            object.__setattr__(self, option.name, _checked(option.name, value, hints[option.name], option.metadata))


def _checked(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """The plain value of an option of a type; names that are ``open`` are checked where they have their meaning."""
    origin, kinds = typing.get_origin(hint), typing.get_args(hint) or (hint,)
    limits = metadata.get("range", {})
    if origin is Literal:
        return value if metadata.get("open") else name_among(f"{name}:", value, kinds)
    if value is None and type(None) in kinds:
        return None
    if origin is tuple:
        return _positive(name, value, len(kinds))
    if bool in kinds:
        return flag(name, value)
    if int in kinds and limits:
        return whole_number(name, value, least=limits["least"], most=limits.get("most"))
    if float in kinds:
        return real_number(name, value, above=limits.get("above"), least=limits.get("least"))
    return value


def _positive(name: str, value: Any, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(real_number(name, item, above=0) for item in value)
    except (InputError, TypeError):
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"{name} {shown(value)} is not possible; use {count} finite numbers above 0")
    return numbers


@dataclass(frozen=True)
class StrategyOptions(Options):
    """What ``QuantNAS`` searches with, besides its costs.

    Attributes:
        entropy: weight of the regularizer (mu_max) at the end of its schedule, see ``entropy_weight``.
        regularizer: what ``entropy`` weighs: the joint entropy of the architecture's distribution, the absolute logits
            ("l1"), their exponentials, or nothing; see ``regularization``.
        relaxation: how the probabilities of a step are drawn from the logits, see ``Relaxation``.
        temperature: of Gumbel draws, at the first and last step after the warm-up; above 0.
        quantization: how quantization shows in the search: as noise, as quantizers of every precision that share a
            weight ("direct") or have one each ("direct_separate"), or not at all. For this and the four below see
            ``SearchQuantization``.
        noise: distribution of the quantization noise.
        noise_mixture: how the noise of several precisions adds up: "rss", the root sum of squares of independent
            draws, or "power", the expected error power.
        masked_noise: whether zero activations get no noise.
        evaluation: how blocks compute their candidates: merged with a noise scale for each ("exact"), merged with one
            noise scale for a block ("fast"), or one after the other.
        architecture_learning_rate: Adam's learning rate for the logits, above 0. Adam moves a logit by about this much
            a step, so a search of few steps needs more: at least 10 / (number of architecture steps).
        warmup_epochs: epochs at the start in which only the weights are trained.
        gradient_clip: largest norm of the weights' gradient, above 0; None for no clipping.
        derive_from: whether logits and weights of the result are those of the last epoch, or of the epoch after the
            warm-up in whose end the distribution itself, without the noise of a relaxation, had the lowest validation
            loss ("best"). It is measured with quantization noise on the same crops every time, which takes at most a
            sixth more time: at most an epoch's steps, and ``FIXED_BATCHES``, forward only.
        measured: how many of the most probable architectures within the budgets are measured after a search that has
            budgets, with half as many plain ones; the best is its answer, see ``SuccessiveHalving``. It takes as many
            training steps of single networks as the search has steps, half as much time again where these are as in
            the judge. 0: the most probable one is the answer.
    """

    entropy: float = 0.0
    regularizer: Literal["entropy", "l1", "exp", "none"] = "entropy"
    relaxation: Literal[
        "softmax", "gumbel", "gumbel_hard", "gumbel_hard_sampled", "dropout", "one_path", "two_paths"
    ] = field(
        default="softmax", metadata={"open": True, "registry": "quantnas_ext.distribution.relaxation.RELAXATIONS"}
    )
    temperature: tuple[float, float] = (10.0, 0.1)
    quantization: Literal["noise", "direct", "direct_separate", "none"] = "noise"
    noise: Literal["uniform", "gaussian"] = "uniform"
    noise_mixture: Literal["rss", "power"] = "rss"
    masked_noise: bool = False
    evaluation: Literal["exact", "fast", "separate"] = "exact"
    architecture_learning_rate: float = number(3e-4, above=0)
    warmup_epochs: int = number(0, least=0)
    gradient_clip: float | None = number(5.0, above=0)
    derive_from: Literal["last", "best"] = "last"
    measured: int = number(0, least=0)


@dataclass(frozen=True)
class LoopOptions(Options):
    """How long a search goes on, and how its weights learn.

    Attributes:
        epochs: passes over the data of the weights, warm-up included.
        steps_per_epoch: steps in an epoch; None for as many as make one pass by all processes together, so that N
            processes take an N-th of the steps of one (at least one: data that do not fill it are gone through again).
        weight_learning_rate: Adam's learning rate for the weights, above 0, at the start of a cosine to zero; the same
            for any number of processes.
        weight_decay: Adam's weight decay for the weights.
        mixed_precision: arithmetic of the search.
    """

    epochs: int = number(20, least=1)
    steps_per_epoch: int | None = number(None, least=1)
    weight_learning_rate: float = number(1e-3, above=0)
    weight_decay: float = number(3e-8, least=0)
    mixed_precision: Literal["no", "bf16"] = "no"


@dataclass(frozen=True)
class BatchOptions(Options):
    """How a search reads its data.

    Attributes:
        batch_size: samples in a batch, in each process. With N processes a step sees N such batches, of which gradients
            are averaged: it is the step that one process makes with a batch N times as large.
        workers: processes that load data; 0 loads in the main process.
    """

    batch_size: int = number(8, least=1)
    workers: int = number(0, least=0, decides=False)


@dataclass(frozen=True)
class EvaluatorOptions(BatchOptions, LoopOptions):
    """What ``AccelerateEvaluator`` trains with, besides its data, its loss, and the place of its checkpoint.

    Attributes:
        seed: of data order and noise; NumPy takes 32 bits.
        channels_last: keep images and kernels with their channels last, which most convolutions prefer.
    """

    seed: int = number(0, least=0, most=2**32 - 1)
    channels_last: bool = False


Kind = TypeVar("Kind", bound=Options)
Function = TypeVar("Function", bound=Callable[..., Any])


def gathered(kind: type[Kind], *sections: object, **changes: Any) -> Kind:
    """Options from objects that have attributes of the same names, such as the sections of a configuration.

    Args:
        kind: which options; one that no section has keeps its default.
        sections: later ones win.
        changes: win over all.
    """
    names = [option.name for option in fields(kind)]
    found = {name: getattr(section, name) for section in sections for name in names if hasattr(section, name)}
    return kind(**(found | changes))


def chosen(kind: type[Kind], options: Kind | None, changes: Mapping[str, Any]) -> Kind:
    """The options that a caller gave, as a whole, by keyword, or both (keywords win).

    Raises:
        InputError: for a keyword that is no option, or options of another kind.
    """
    names = [option.name for option in fields(kind)]
    for name in changes:
        name_among("option", name, names)
    if options is not None and not isinstance(options, kind):
        raise InputError(f"{shown(options)} cannot be the options; give {kind.__name__}, or each by its name")
    return gathered(kind, *([] if options is None else [options]), **changes)


def deciding(options: Options) -> dict[str, Any]:
    """The options that a result depends on, by name."""
    return {o.name: getattr(options, o.name) for o in fields(options) if o.metadata.get("decides", True)}


def takes(kind: type[Options]) -> Callable[[Function], Function]:
    """Let a function that ends in ``**changes`` show the options' own names, types and defaults (help, completion)."""

    def with_signature(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        of_options = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(kind).parameters.values()]
        function.__signature__ = inspect.Signature([*own, *of_options])  # type: ignore[attr-defined]
        return function

    return with_signature

"""The two jobs of ``search_quality.py`` that no recipe does: what networks by hand cost, and how a supernet ranks.

python benchmarks/judge/parts.py hand --ask FILE --out FILE
python benchmarks/judge/parts.py ranking --ask FILE --out FILE --config FILE [--set KEY=VALUE ...]
"""

from __future__ import annotations

import quantnas_ext  # noqa: F401 (before torch, so that its threads wait without spinning)

# isort: split
import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantnas_ext import Architecture
from quantnas_ext.search import result
from recipes import search as recipe

BASIC_LABELS = ("head_0", "head_1", "body_0", "body_1", "body_skip", "upsample_0", "tail_0", "tail_1")
ENDS = {"sr_basic": (("head_0",), ("tail_1",)), "sr_rfdn": (("body0_0", "distil0_0"), ("tail_0",))}
"""First and last blocks of a space."""


def patterns(space: str, arguments: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The same kind of operation in every block, by a name for it: the operation of each block."""
    found: dict[str, dict[str, str]] = {}
    if space == "sr_basic":
        for side in ("3x3", "5x5"):
            for beside in ("conv_1x1", f"conv_{side}"):
                for body in ("conv", "fac"):
                    own = dict.fromkeys(BASIC_LABELS, f"conv_{side}")
                    own |= {"body_0": f"{body}_{side}", "body_1": f"{body}_{side}", "body_skip": beside}
                    found[f"{side} {body} {beside}"] = own
        return found
    labels = [f"body{cell}_{index}" for cell in range(arguments["cells"]) for index in range(4)]
    labels += [f"distil{cell}_{index}" for cell in range(arguments["cells"]) for index in range(3)]
    for side in ("1x1", "3x3", "5x5"):
        for operation in (f"conv_{side}", f"conv_{side}_g2", f"growth1_{side}"):
            # The tail has three channels, which do not divide into two groups.
            own = dict.fromkeys([*labels, "upsample_0"], operation) | {"tail_0": operation.removesuffix("_g2")}
            found[operation] = own
    return found


def networks_by_hand(space: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each pattern with all blocks at the fewest or most bits, or the first, or first and last, at the most."""
    few, many = min(arguments["bits"]), max(arguments["bits"])
    first, last = ENDS[space]
    networks = []
    for pattern, operations in patterns(space, arguments).items():
        for wide in ((), first, (*first, *last), tuple(operations)):
            bits = {f"{label}__{name}__bits": many if label in wide else few for label, name in operations.items()}
            counted = Architecture.of(space, arguments, operations | bits)
            described = {"space": space, "arguments": dict(arguments), "choices": counted.choices}
            networks.append({"pattern": pattern, **described, "cost": {"bitops_32": counted.cost["bitops_32"]}})
    return networks


def ranking(options: Sequence[str], ranked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """PSNR (dB, validation crops) of architectures with the weights of a search's supernet, calibrated.

    The recipe searches as ever; what it then measures of the found network is measured of the others too.
    """
    scores: list[float] = []
    measure = result.derive_and_score

    def measure_all(strategy: Any, calibration: Any, validation: Any, metrics: Any, sample: Any) -> Any:
        for choices in ranked:
            scores.append(measure(strategy, calibration, validation, metrics, choices)[1]["derived"]["psnr"])
        return measure(strategy, calibration, validation, metrics, sample)

    result.derive_and_score = measure_all
    recipe.main([*options, "--set", "search.measured=0"])
    return {"psnr": [round(score, 4) for score in scores]}


def main(argv: list[str] | None = None) -> None:
    """Do one of the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("hand", "ranking"))
    parser.add_argument("--ask", type=Path, required=True, help="JSON file with what the job depends on")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments, options = parser.parse_known_args(argv)
    ask = json.loads(arguments.ask.read_text())
    if arguments.kind == "hand":
        answer: dict[str, Any] = {"networks": networks_by_hand(ask["space"], ask["arguments"])}
    else:
        answer = ranking(options, ask["ranked"])
    arguments.out.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()

"""What lets learned steps move: a group of their own in the optimizer."""

from __future__ import annotations

from torch import nn, optim

from quantnas_ext.quantization.protocol import Quantizer

STEP_RATE = 3.0
"""Learning rate of steps, times that of the weights."""

STEP_EPSILON = 1e-16
"""Adam's epsilon for steps, far below their gradients."""


def step_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What the quantizers of a model learn (LSQ: the logarithms of the steps), each once."""
    quantizers = (module for module in model.modules() if isinstance(module, Quantizer))
    return list(dict.fromkeys(step for quantizer in quantizers for step in quantizer.step_parameters()))


def give_steps_a_group(optimizer: optim.Optimizer, model: nn.Module) -> None:
    """Put the learned steps of a model in a parameter group of their own, after those that the optimizer has.

    LSQ scales the gradient of a step by ``1 / sqrt(Q_p N)``. That of an activation step is then 1e-10 to 1e-8, which
    Adam's usual epsilon of 1e-8 keeps from moving it; and where Adam moves it, it moves by about the learning rate in a
    step, while a step started badly has a logarithm that is off by 1 or 2. So steps get ``STEP_RATE`` times the
    learning rate of the group they were in, ``STEP_EPSILON`` where the optimizer has an epsilon, and no weight decay,
    which would draw each to the size 1.

    Args:
        optimizer: of the model's parameters, before a learning rate schedule is made for it. Steps that it does not
            have stay out of it; without any it is left as it is.
        model: whose steps these are.
    """
    steps = {id(step) for step in step_parameters(model)}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in steps]
        if not own:
            continue
        settings = {key: value for key, value in group.items() if key != "params"}
        settings["lr"] = STEP_RATE * settings["lr"]
        for name, value in (("eps", STEP_EPSILON), ("weight_decay", 0.0)):
            if name in settings:
                settings[name] = value
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in steps]
        optimizer.add_param_group({"params": own, **settings})

"""e-prop for a network's neurons, as a learning rule of Loihi in text."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from eprop.chips.loihi import EPropRule, eprop_alif, eprop_lif, rule_to_text
from eprop.errors import InvalidSetting, require
from eprop.files import write_text
from eprop.interop._nir import require_no_delays
from eprop.networks import Network, Recurrent
from eprop.neurons import ALIF, LIF, Filtered
from eprop.rules import EProp1, Rule


def to_loihi_rule(network: Network, path: str | Path, *, rule: Rule | None = None, exponent: int = -4) -> EPropRule:
    """Write e-prop for the network's neurons as a learning rule of the chip (`eprop.chips.loihi`); weights stay here.

    The voltage's decay, of 12 bits, is the nearest to `exp(-dt/tau_m)`. A unit of an ALIF neuron's y2 is the power of
    two with which its largest pseudo-derivative fills 7 bits. Comments say units, and errors of constants.

    Args:
        network: one layer of LIF or ALIF neurons whose constants are the same for all.
        path: the text file; `eprop.chips.loihi.rule_from_text` reads it.
        rule: what the network learns by; the chip's rules are e-prop 1 alone.
        exponent: of the weight's product, -7 to 8: the learning rate.

    Raises:
        InvalidSetting: for what the chip's rules cannot say, with the reason.
    """
    require(
        rule is None or isinstance(rule, EProp1),
        f"rule {getattr(rule, 'label', rule)!r}: is no sum of products of local traces; eprop1 is",
    )
    require(len(network.layers) == 1, f"layers: a rule is of one population, this network has {len(network.layers)}")
    layer = network.layers[0]
    if not isinstance(layer, Recurrent):
        raise InvalidSetting(f"layers[0]: {type(layer).__name__}: the chip runs forwards in time only")
    neuron: Any = layer.neuron.neuron if isinstance(layer.neuron, Filtered) else layer.neuron
    name = type(neuron).__name__
    require_no_delays(0, layer)
    require(type(neuron) in (LIF, ALIF), f"layers[0]: {name}: rules are written for LIF and ALIF neurons")
    alpha = math.exp(-neuron.dt / _one("tau_m", neuron.tau_m))
    dv = round(4096 * (1 - alpha))
    if isinstance(neuron, LIF):
        require(
            neuron.reset == "subtract", "reset = 'hard': wipes each neuron's own trace, and x1 is one for all neurons"
        )
        made = eprop_lif(dv, exponent=exponent)
    else:
        made = _alif(neuron, dv, exponent)
    wanted = 4096 * (1 - alpha)
    comments = [
        f"e-prop for {name} neurons: decay of the voltage dv = {dv} of 4096 (wanted {wanted:.2f}), du = 4095",
        "y3 = 64 - L psi" + (f", y2 = psi / {made.psi:g}" if made.psi else "") + ": the neuron sends them each step",
        f"a unit of y3 adds {made.weight:g} units of weight for a spike that has not decayed",
        *(f"constant of {what}: {100 * error:+.1f} % off" for what, error in made.errors.items()),
        "the chip's own neuron resets to 0 and not by the threshold; the readout's filter is not in the rule",
    ]
    write_text(Path(path), rule_to_text(made.rule, comments))
    return made


def _alif(neuron: ALIF, dv: int, exponent: int) -> EPropRule:
    require(
        neuron.adaptation_gain == "one", f"adaptation_gain = {neuron.adaptation_gain!r}: the rule knows 'one' alone"
    )
    require(
        neuron.threshold_scaling == "baseline",
        f"threshold_scaling = {neuron.threshold_scaling!r}: the rule knows 'baseline' alone",
    )
    beta, tau_a = _one("beta", neuron.beta), _one("tau_a", neuron.tau_a) / neuron.dt
    scale = 1.0 if neuron.pseudo_derivative_scaling == "none" else _one("v_th", neuron.v_th)
    unit = 2.0 ** math.ceil(math.log2(neuron.surrogate.dampening_factor / scale / 127))
    return eprop_alif(dv, tau_a, beta, unit, exponent=exponent)


def _one(name: str, value: Any) -> float:
    found = np.unique(np.asarray(value))
    require(found.size == 1, f"{name}: {found.size} values, and a rule holds one for a whole population")
    return float(found[0])

"""Arguments that reverse mode alone may differentiate: forward mode is refused by name, wherever it comes from.

Two primitives of JAX. The first is the identity; its tangent is the second's result. The second is linear: reverse mode
transposes it, to the identity, and never computes it. Forward mode would compute it, and that is where it is refused:
at once, under `jax.vmap` too, or, under `jax.jit`, when it is lowered.
"""

from typing import Any, NoReturn

import equinox as eqx
import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from eprop.errors import InvalidSetting
from eprop.neurons import PyTree

_value = Primitive("reverse_only")
_tangent = Primitive("tangent_of_reverse_only")


def reverse_only(tree: PyTree, of: str) -> PyTree:
    """The tree, none of whose floating-point arrays forward mode may differentiate.

    Args:
        of: what it belongs to, for the message.
    """
    return jax.tree.map(lambda x: _value.bind(x, of=of) if eqx.is_inexact_array(x) else x, tree)


def _refuse(*_: Any, of: str) -> NoReturn:
    raise InvalidSetting(
        f"{of}: has no forward-mode derivative (jax.jvp, jacfwd, linearize, hessian): its gradient is made of learning "
        "signals, which run backwards; use jax.grad, jax.vjp or jax.jacrev, or your own loop over the neuron's step"
    )


def _jvp(primals: tuple, tangents: tuple, *, of: str) -> tuple:
    (x,), (t,) = primals, tangents
    return _value.bind(x, of=of), t if isinstance(t, ad.Zero) else _tangent.bind(t, of=of)


def _batched(arguments: tuple, axes: tuple, *, of: str) -> tuple:
    return _value.bind(*arguments, of=of), axes[0]


_value.def_impl(lambda x, *, of: x)
_tangent.def_impl(_refuse)
mlir.register_lowering(_value, lambda context, x, *, of: [x])
mlir.register_lowering(_tangent, _refuse)
ad.primitive_jvps[_value] = _jvp
ad.deflinear2(_tangent, lambda cotangent, x, *, of: [cotangent])
batching.primitive_batchers[_value] = _batched
batching.primitive_batchers[_tangent] = _refuse
for _primitive in (_value, _tangent):
    _primitive.def_abstract_eval(lambda x, *, of: x)

"""e-prop 3: with the true gradient at the boundaries it is BPTT; what each of its halves leaves out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from eprop.eligibility._trajectory import contract_presynaptic, input_drive, unstack_currents

from eprop import ALIF, BPTT, GRU, LSTM, Filtered, InvalidSetting, Network, Readout, Recurrent, make_rule, trainable
from eprop.eligibility import (
    Synapses,
    dense_zero_traces,
    eligibility_step,
    record,
    reset_carry,
    settle_traces,
    split_presynaptic,
    stepwise_gradient,
    total_learning_signals,
    trace_structure,
    unroll_exact,
    unroll_with_boundary,
    with_late_traces,
)
from eprop.learning_signals import SyntheticGradient, boundary_loss
from eprop.neurons import readout_output, recurrent_output, traced
from eprop.rules import WINDOWED, EProp3
from models import BATCH, MODELS, N_IN, TIME, N, check_alive, difference, inputs, make, targets

pytestmark = pytest.mark.slow  # `make test-all`

EXACT = 1e-10
every_model = pytest.mark.parametrize("name", MODELS)


class Case:
    """A layer, its inputs, and the whole sequence's loss: a sum over steps, so that windows add up."""

    def __init__(self, name, time=TIME):
        self.network = make(name)
        self.layer = self.network.layers[0]
        self.neuron, self.synapses = self.layer.neuron, self.layer.synapses()
        self.constants, self.rest = eqx.partition(self.neuron, eqx.is_inexact_array)
        self.x, self.target, self.start = inputs(time), targets(time), self.layer.start(BATCH)
        self.gradient = jax.jit(self._gradient, static_argnums=0)

    def loss(self, outputs, target):
        y, z = readout_output(outputs) @ self.network.readout.weight, recurrent_output(outputs)
        return 0.5 * jnp.sum((y - target) ** 2) + 0.05 * jnp.sum((z - 0.1) ** 2)

    def bptt(self):
        """Plain automatic differentiation: over (constants, synapses), and over (state, z) after every step."""
        x = input_drive(self.synapses, self.x)

        def loss(parameters, perturbations):
            constants, synapses = parameters
            model = eqx.combine(constants, self.rest)
            drive = input_drive(synapses, self.x)

            def step(carry, inputs):
                state, z = carry
                drive, of_state, of_z = inputs
                currents = drive + contract_presynaptic(z, synapses.w_rec)
                state, outputs = model.step(state, unstack_currents(currents), z)
                floating, others = eqx.partition(state, eqx.is_inexact_array)
                floating = jax.tree.map(jnp.add, floating, of_state)
                state, z = eqx.combine(floating, others), recurrent_output(outputs) + of_z
                return (state, z), (outputs, state, z)

            _, (outputs, *carries) = jax.lax.scan(step, (self.start.state, self.start.z), (drive, *perturbations))
            return self.loss(outputs, self.target), (outputs, carries)

        every = lambda s: jnp.zeros((len(x), *s.shape), s.dtype)  # noqa: E731
        nothing = jax.tree.map(every, (traced(self.start.state), self.start.z))
        parameters = (self.constants, self.synapses)
        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(parameters, nothing)

    def _gradient(self, unroll, carry, x, target, seed):
        def loss(constants, synapses, floating, z):
            first = carry._replace(state=eqx.combine(floating, carry.state), z=z)
            outputs, last = unroll(eqx.combine(constants, self.rest), synapses, x, first)
            pairs = zip(jax.tree.leaves((traced(last.state), last.z)), jax.tree.leaves(seed), strict=True)
            return self.loss(outputs, target) + sum(jnp.sum(a * b) for a, b in pairs), last

        arguments = (self.constants, self.synapses, traced(carry.state), carry.z)
        return jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    def window(self, carry, part, seed, unroll=unroll_with_boundary):
        """One window's gradients, over constants, synapses, state and z, with a seed at its end; the last carry."""
        return self.gradient(unroll, carry, self.x[part], self.target[part], seed)


def cuts(lengths):
    first = 0
    for length in lengths:
        yield slice(first, first + length)
        first += length


def windows_of(length, time):
    return [min(length, time - t) for t in range(0, time, length)]


# 5. with the true boundary gradient = BPTT, any window


@every_model
def test_with_the_true_boundary_gradient_the_windows_sum_is_bptt(name):
    time = 5
    case = Case(name, time)
    (expected, by_step), (outputs, _) = case.bptt()
    check_alive(recurrent_output(outputs), expected)
    for lengths in (*(windows_of(k, time) for k in range(1, time + 1)), (2, 1, 2)):
        carry = with_late_traces(case.neuron, case.synapses, case.start, lengths[0])
        total = jax.tree.map(jnp.zeros_like, expected)
        for part in cuts(lengths):
            last = part.stop == time
            seed = jax.tree.map(lambda g, t=part.stop - 1, last=last: (0.0 if last else 1.0) * g[t], by_step)
            (constants, synapses, *at_start), carry = case.window(carry, part, seed)
            if part.start > 0:
                true = jax.tree.map(lambda g, t=part.start - 1: g[t], by_step)
                assert difference(tuple(at_start), true) < EXACT, lengths
            total = jax.tree.map(jnp.add, total, (constants, synapses))
        assert difference(total, expected) < EXACT, lengths


def test_a_stack_with_the_true_boundary_gradients_is_bptt():
    time, window = 6, 2
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((N_IN, keys[0]), (N, keys[1]))
    layers = tuple(Recurrent(LSTM(), n_in, N, key=k, bias=True, dtype=jnp.float64) for n_in, k in sizes)
    network = Network(layers, Readout(N, 2, key=keys[2], dtype=jnp.float64))
    x, target = inputs(time), targets(time)
    chosen, rest = eqx.partition(network, trainable(network, EProp3()))

    def loss(chosen, boundary, carry, x, target, rule, seed=None):
        carry = tuple(c._replace(state=s, z=z) for c, (s, z) in zip(carry, boundary, strict=True))
        result = eqx.combine(chosen, rest)(x, rule, carry)
        total = 0.5 * jnp.sum((result.y - target) ** 2)
        if seed is not None:
            total = total + sum(boundary_loss(c, s) for c, s in zip(result.carry, seed, strict=True))
        return total, result.carry

    of = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=5)
    at = lambda carry: tuple((c.state, c.z) for c in carry)  # noqa: E731
    plain = network.start(BATCH)
    (expected, _), _ = of(chosen, at(plain), plain, x, target, BPTT())
    carry = tuple(
        with_late_traces(layer.neuron, layer.synapses(), c, window) for layer, c in zip(layers, plain, strict=True)
    )
    total = jax.tree.map(jnp.zeros_like, expected)
    for t in range(0, time, window):
        part = slice(t, t + window)
        bare = lambda carry: tuple(c._replace(traces=None) for c in carry)  # noqa: E731
        _, ahead = network_carry(network, x[part], bare(carry))
        seed = jax.tree.map(jnp.zeros_like, at(ahead))
        if t + window < time:
            (_, seed), _ = of(chosen, at(ahead), ahead, x[t + window :], target[t + window :], BPTT())
        (gradient, _), carry = of(chosen, at(carry), carry, x[part], target[part], EProp3(window), seed)
        total = jax.tree.map(jnp.add, total, gradient)
    assert difference(total, expected) < EXACT


def network_carry(network, x, carry):
    result = network(x, BPTT(), carry)
    return result.y, result.carry


# What each half leaves out


@pytest.mark.parametrize("name", ["lstm", "lif", "user's"])
def test_carried_vectors_are_the_stepwise_ones_and_dead_currents_have_none(name):
    case = Case(name)
    kept = trace_structure(case.neuron)
    carry = with_late_traces(case.neuron, case.synapses, case.start, 4)
    run = jax.jit(lambda x, carry: unroll_with_boundary(case.neuron, case.synapses, x, carry))
    for part in cuts((4, 4, 3)):
        _, carry = run(case.x[part], carry)
    reference = stepwise(case, case.x[:11])
    found = settle_traces(kept, carry.traces)
    if case.layer.trainable:
        assert difference(found.constants, reference.constants) < EXACT
    for vector, whole, currents in zip(found.synapses, reference.synapses, kept.currents, strict=True):
        assert difference(vector, whole[:, :, jnp.array(currents)]) < EXACT
        dropped = [q for q in range(case.neuron.num_currents) if q not in currents]
        assert all(float(jnp.abs(whole[:, :, q]).max()) == 0.0 for q in dropped)


def stepwise(case, x):
    """Eligibility vectors by the paper's recursion, and plain steps."""
    state, z, _ = case.start
    vectors = dense_zero_traces(case.neuron, state, N_IN + N + 1)
    step = jax.jit(lambda *a: eligibility_step(case.neuron, *a))
    for x_t in x:
        presynaptic = jnp.concatenate([x_t, z, jnp.ones((BATCH, 1))], axis=-1)
        currents = input_drive(case.synapses, x_t[None])[0] + contract_presynaptic(z, case.synapses.w_rec)
        _, outputs = case.neuron.step(state, unstack_currents(currents), z)
        state, vectors, _ = step(state, vectors, presynaptic, currents, z)
        z = recurrent_output(outputs)
    return vectors


def test_the_structure_of_a_model_is_read_off_its_step():
    assert trace_structure(LSTM())[:2] == (((0, 1, 2),), ((0,),))  # the output gate leaves no trace in c
    assert trace_structure(Filtered(LSTM()))[:2] == (((0, 1, 2), (0, 1, 2, 3)), ((0,), (0, 1)))
    assert trace_structure(GRU())[:2] == (((0, 1, 2, 3),), ((0,),))
    assert trace_structure(Filtered(ALIF()))[:2] == (((0,),) * 3, ((0,), (0, 1), (0, 1, 2)))


@pytest.mark.parametrize("name", ["lstm", "alif of 2019"])
def test_without_carried_traces_it_is_decoupled_interfaces_but_for_the_states_seed(name):
    """Decoupled interfaces (plain autodiff of the window) seed the weights with `ds_K/dW` too, which e-prop 3 leaves
    to the traces: the difference is `seed . eps_K`, eps from zero at the window's start; 0 with no seed on the state.
    """
    case = Case(name)
    carry = case.start
    wave = lambda s: jnp.cos(1.0 + jnp.arange(s.size)).reshape(s.shape)  # noqa: E731
    state_seed, z_seed = jax.tree.map(wave, (traced(carry.state), carry.z))
    vectors = stepwise(case, case.x[:5]).synapses
    pairs = zip(jax.tree.leaves(state_seed), vectors, strict=True)
    through_state = sum(jnp.einsum("bn,bikn->ikn", seed, vector) for seed, vector in pairs)
    for seed_of_state in (1.0, 0.0):
        seed = (jax.tree.map(lambda s, f=seed_of_state: f * s, state_seed), z_seed)
        (_, plain, *at_start), _ = case.window(carry, slice(0, 5), seed, unroll_exact)
        (_, found, *boundary), _ = case.window(carry, slice(0, 5), seed)
        check_alive(jnp.ones(9), found)
        assert difference(boundary, at_start) < EXACT
        whole = jnp.concatenate([found.w_in, found.w_rec, found.bias[None]]) + seed_of_state * through_state
        assert difference(Synapses(whole[:N_IN], whole[N_IN:-1], whole[-1]), plain) < EXACT
    zeroed = reset_carry(
        case.window(with_late_traces(case.neuron, case.synapses, carry, 5), slice(0, 5), seed)[1],
        carry, jnp.ones(BATCH, bool),
    )  # fmt: skip
    again, _ = case.window(zeroed, slice(0, 5), seed)
    assert difference(again[1], found) < EXACT


@pytest.mark.parametrize("name", ["lstm", "lif"])
def test_with_a_seed_of_zero_it_is_eligibility_only_by_an_independent_derivation(name):
    """`L` of truncated BPTT by perturbing outputs window by window; the paper's traces, step by step, never reset."""
    case = Case(name, time=6)
    carry = with_late_traces(case.neuron, case.synapses, case.start, 3)
    nothing = jax.tree.map(jnp.zeros_like, (traced(carry.state), carry.z))
    signals, summed = [], None
    for part in cuts((3, 3)):
        _, found = total_learning_signals(
            case.neuron, case.synapses, case.x[part], carry, lambda o, part=part: case.loss(o, case.target[part])
        )
        signals.append(found)
        (_, synapses, *_), carry = case.window(carry, part, nothing)
        summed = synapses if summed is None else jax.tree.map(jnp.add, summed, synapses)
    signals = jax.tree.map(lambda *s: jnp.concatenate(s), *signals)
    outputs, trajectory = record(case.neuron, case.synapses, case.x, case.start)
    expected = stepwise_gradient(case.neuron, trajectory, signals).synapses
    check_alive(recurrent_output(outputs), expected)
    assert difference(summed, Synapses(*split_presynaptic(expected, N_IN))) < EXACT


# The module


def test_a_fresh_module_says_nothing_and_a_bad_one_is_refused():
    module = SyntheticGradient(2, 3, hidden=(5,), key=jax.random.key(0))
    state = (jnp.ones((4, 3)), jnp.ones((4, 3)))
    of_state, of_z = module(state, jnp.ones((4, 3)))
    assert jax.tree.structure(of_state) == jax.tree.structure(state)
    assert all(not leaf.any() and leaf.shape == (4, 3) for leaf in (*of_state, of_z))
    with pytest.raises(InvalidSetting, match="a hidden layer needs at least one unit"):
        SyntheticGradient(1, 3, hidden=(0,), key=jax.random.key(0))


def test_rules_have_their_window_in_their_name():
    assert [make_rule(f"{name}:7").label for name in WINDOWED] == [f"{name}:7" for name in WINDOWED]
    both = {r: (make_rule(r).carries_traces, make_rule(r).synthesises) for r in WINDOWED}
    assert list(both.values()) == [(False, False), (False, True), (True, False), (True, True)]
    with pytest.raises(InvalidSetting, match="must be a whole number of steps"):
        make_rule("eprop3:four")
    with pytest.raises(InvalidSetting, match="window = 0: must be at least 1 step"):
        make_rule("eprop3:0")

"""e-prop 3: with the true gradient at the boundaries it is BPTT; what each of its halves leaves out."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from eprop import (
    ALIF,
    BPTT,
    GRU,
    LIF,
    LSTM,
    Filtered,
    InvalidSetting,
    Network,
    Readout,
    Recurrent,
    make_rule,
    partition,
)
from eprop.eligibility import (
    Synapses,
    record,
    restart,
    settle,
    split_presynaptic,
    stepwise,
    stepwise_gradient,
    total_learning_signals,
    trace_structure,
    unroll,
    with_traces,
)
from eprop.eligibility.stepwise import dense_zero_traces, eligibility_step
from eprop.eligibility.tools import contract_presynaptic, input_currents, split_constants, unstack_currents
from eprop.learning_signals import SyntheticGradient, boundary_loss
from eprop.neurons import readout_output, recurrent_output, traced
from eprop.rules import WINDOWED, EligibilityOnly, EProp3
from models import BATCH, MODELS, N_IN, TIME, N, check_alive, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

EXACT = 1e-10


class Case:
    """A layer, its inputs, and the whole sequence's loss: a sum over steps, so that windows add up."""

    def __init__(self, name, time=TIME):
        self.network = make(name)
        self.layer = self.network.layers[0]
        self.neuron, self.synapses = self.layer.neuron, self.layer.synapses()
        self.constants, self.rest = split_constants(self.neuron)
        self.x, self.target, self.start = inputs(time), targets(time), self.layer.start(BATCH)
        self.gradient = jax.jit(self._gradient)

    def loss(self, outputs, target):
        y, z = readout_output(outputs) @ self.network.readout.weight, recurrent_output(outputs)
        return 0.5 * jnp.sum((y - target) ** 2) + 0.05 * jnp.sum((z - 0.1) ** 2)

    def bptt(self):
        """Plain automatic differentiation: over (constants, synapses), and over (state, z) after every step."""

        def loss(parameters, perturbations):
            constants, synapses = parameters
            model = eqx.combine(constants, self.rest)
            drive = input_currents(synapses, self.x)

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

        every = lambda s: jnp.zeros((len(self.x), *s.shape), s.dtype)  # noqa: E731
        nothing = jax.tree.map(every, (traced(self.start.state), self.start.z))
        parameters = (self.constants, self.synapses)
        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(parameters, nothing)

    def _gradient(self, carry, x, target, seed):
        def loss(constants, synapses, floating, z):
            first = carry._replace(state=eqx.combine(floating, carry.state), z=z)
            outputs, _, last = unroll(eqx.combine(constants, self.rest), synapses, x, first, recurrence="kept")
            pairs = zip(jax.tree.leaves((traced(last.state), last.z)), jax.tree.leaves(seed), strict=True)
            return self.loss(outputs, target) + sum(jnp.sum(a * b) for a, b in pairs), last

        arguments = (self.constants, self.synapses, traced(carry.state), carry.z)
        return jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    def window(self, carry, part, seed):
        """One window's gradients, over constants, synapses, state and z, with a seed at its end; the last carry.

        With a carry that has traces it is e-prop 3's window; with one that has none, plain differentiation's.
        """
        return self.gradient(carry, self.x[part], self.target[part], seed)

    def traces(self, carry):
        """The carry with zero eligibility vectors."""
        return with_traces(self.neuron, self.synapses, carry)


def cuts(lengths):
    first = 0
    for length in lengths:
        yield slice(first, first + length)
        first += length


def windows_of(length, time):
    return [min(length, time - t) for t in range(0, time, length)]


# 5. with the true boundary gradient = BPTT, any window


def windows_sum_is_bptt(case, time, *cut):
    (expected, by_step), (outputs, _) = case.bptt()
    check_alive(recurrent_output(outputs), expected)
    for lengths in cut:
        carry = case.traces(case.start)
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


@pytest.mark.parametrize("name", ["alif", "lstm"])
def test_with_the_true_boundary_gradient_the_windows_sum_is_bptt(name):
    windows_sum_is_bptt(Case(name, 6), 6, (2, 2, 2))


@slow
@pytest.mark.parametrize("name", MODELS)
def test_with_the_true_boundary_gradient_any_windows_sum_is_bptt(name):
    time = 5
    windows_sum_is_bptt(Case(name, time), time, *(windows_of(k, time) for k in range(1, time + 1)), (2, 1, 2))


@slow
@pytest.mark.parametrize(("time", "window"), [(4, 2), (7, 3)])
def test_a_stack_with_the_true_boundary_gradients_is_bptt(time, window):
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((N_IN, keys[0]), (N, keys[1]))
    layers = tuple(Recurrent(LSTM(), n_in, N, key=k, bias=True, dtype=jnp.float64) for n_in, k in sizes)
    network = Network(layers, Readout(N, 2, key=keys[2], dtype=jnp.float64))
    x, target = inputs(time), targets(time)
    chosen, rest = partition(network, EProp3())

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
    carry = network.start(BATCH, traces=True)
    total = jax.tree.map(jnp.zeros_like, expected)
    ahead_of = jax.jit(lambda x, carry: network(x, BPTT(), carry).carry)
    for t in range(0, time, window):
        part = slice(t, min(t + window, time))
        ahead = ahead_of(x[part], tuple(c._replace(traces=None) for c in carry))
        seed = jax.tree.map(jnp.zeros_like, at(ahead))
        if t + window < time:
            (_, seed), _ = of(chosen, at(ahead), ahead, x[t + window :], target[t + window :], BPTT())
        (gradient, _), carry = of(chosen, at(carry), carry, x[part], target[part], EProp3(window), seed)
        total = jax.tree.map(jnp.add, total, gradient)
    assert difference(total, expected) < EXACT


# One loss over several windows: the rule cuts them itself


BY_HAND = [
    pytest.param("lif", EProp3(4), stepwise.unroll, id="lif-eprop3-stepwise"),
    pytest.param("lif", EligibilityOnly(4), unroll, id="lif-eligibility_only"),
    pytest.param("lif", EProp3(4), unroll, marks=slow, id="lif-eprop3"),
    pytest.param("lif", EligibilityOnly(4), stepwise.unroll, marks=slow, id="lif-eligibility_only-stepwise"),
    pytest.param("alif", EProp3(4), unroll, marks=slow, id="alif-eprop3"),
    pytest.param("alif", EProp3(4), stepwise.unroll, marks=slow, id="alif-eprop3-stepwise"),
]


@pytest.mark.parametrize(("name", "rule", "engine"), BY_HAND)
def test_a_loss_over_several_windows_has_the_gradient_of_windows_run_one_by_one(name, rule, engine):
    """10 steps in windows of 4, of neurons that rest after a spike: their counters cross the boundaries."""
    network, x, target = make(name), inputs(10), targets(10)
    layer = network.layers[0]
    assert layer.neuron.neuron.n_refractory > 1
    start, future = layer.start(BATCH), None
    if rule.synthesises:
        components = len(jax.tree.leaves(traced(start.state)))
        future = SyntheticGradient(components, N, key=jax.random.key(0), dtype=jnp.float64)
        weight = 0.3 * jax.random.normal(jax.random.key(1), future.weight.shape, jnp.float64)
        future = eqx.tree_at(lambda m: m.weight, future, weight)
    chosen, rest = partition(network, rule)

    def loss(chosen):
        result = eqx.combine(chosen, rest)(x, rule, None, None, None if future is None else (future,))
        return 0.5 * jnp.sum((result.y - target) ** 2) + 0.1 * jnp.sum(result.z[0] * target.sum()), result

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def of_window(chosen, x, target, carry, last):
        """By hand: the window's own loss, and what the module says of the time after it."""
        whole = eqx.combine(chosen, rest)
        neuron, synapses = whole.layers[0].neuron, whole.layers[0].synapses()
        outputs, _, carry = engine(neuron, synapses, x, carry, recurrence="kept")
        y = readout_output(outputs) @ whole.readout.weight + whole.readout.bias
        total = 0.5 * jnp.sum((y - target) ** 2) + 0.1 * jnp.sum(recurrent_output(outputs) * all_targets)
        if future is not None:
            said = future(*jax.lax.stop_gradient((carry.state, carry.z)))
            total = total + (1.0 - last) * boundary_loss(carry, said)
        return total, (y, jax.lax.stop_gradient(carry))

    all_targets = target.sum()
    found, result = jax.jit(jax.grad(loss, has_aux=True))(chosen)
    check_alive(result.z[0], found)
    assert any(bool((result.z[0][t - 3 : t] > 0).any()) for t in (4, 8))  # some rest when the window ends
    carry = layer.start(BATCH, traces=True)
    if engine is stepwise.unroll:
        carry = start._replace(traces=dense_zero_traces(layer.neuron, start.state, layer.synapses().presynaptic))
    total, shown = jax.tree.map(jnp.zeros_like, found), []
    for part in cuts((4, 4, 2)):
        gradient, (y, carry) = of_window(chosen, x[part], target[part], carry, float(part.stop == 10))
        total, shown = jax.tree.map(jnp.add, total, gradient), [*shown, y]
    assert difference(result.y, jnp.concatenate(shown)) < EXACT
    assert difference(found, total) < EXACT
    if future is not None:  # what it said counted
        said = future(result.carry[0].state, result.carry[0].z)
        assert all(float(jnp.abs(g).max()) > 1e-3 for g in jax.tree.leaves(said))


# What each half leaves out


@pytest.mark.parametrize("name", ["lif", *(pytest.param(name, marks=slow) for name in ("lstm", "user's"))])
def test_carried_vectors_are_the_stepwise_ones_and_dead_currents_have_none(name):
    case = Case(name)
    kept = trace_structure(case.neuron)
    carry = case.traces(case.start)
    run = jax.jit(lambda x, carry: unroll(case.neuron, case.synapses, x, carry, recurrence="kept")[2])
    for part in cuts((4, 4, 3)):
        carry = run(case.x[part], carry)
    reference = vectors_by_steps(case, case.x[:11])
    found = settle(case.neuron, carry.traces)
    if case.layer.trainable:
        assert difference(found.constants, reference.constants) < EXACT
    each = zip(found.synapses, reference.synapses, kept.currents, kept.shared, strict=True)
    for vector, whole, currents, shared in each:
        if currents:
            assert difference(vector[..., None] if shared else vector, whole[:, :, jnp.array(currents)]) < EXACT
        dropped = [q for q in range(case.neuron.num_currents) if q not in currents]
        assert all(float(jnp.abs(whole[:, :, q]).max()) == 0.0 for q in dropped)


def vectors_by_steps(case, x):
    """Eligibility vectors by the paper's recursion, and plain steps."""

    def step(carry, x_t):
        (state, z), vectors = carry
        presynaptic = jnp.concatenate([x_t, z, jnp.ones((BATCH, 1))], axis=-1)
        currents = input_currents(case.synapses, x_t[None])[0] + contract_presynaptic(z, case.synapses.w_rec)
        _, outputs = case.neuron.step(state, unstack_currents(currents), z)
        state, vectors, _ = eligibility_step(case.neuron, state, vectors, presynaptic, currents, z)
        return ((state, recurrent_output(outputs)), vectors), None

    state, z = case.start[:2]
    vectors = dense_zero_traces(case.neuron, state, N_IN + N + 1)
    return jax.jit(lambda x: jax.lax.scan(step, ((state, z), vectors), x)[0][1])(x)


def test_the_structure_of_a_model_is_read_off_its_step():
    assert trace_structure(LSTM())[:2] == (((0, 1, 2),), ((0,),))  # the output gate leaves no trace in c
    assert trace_structure(Filtered(LSTM()))[:2] == (((0, 1, 2), (0, 1, 2, 3)), ((0,), (0, 1)))
    assert trace_structure(GRU())[:2] == (((0, 1, 2, 3),), ((0,),))
    assert trace_structure(Filtered(ALIF()))[:2] == (((0,),) * 3, ((0,), (0, 1), (0, 1, 2)))
    assert trace_structure(LIF()).shared == (True,)  # one number a presynaptic neuron
    assert trace_structure(LIF(reset="hard")).shared == (False,)  # each neuron's own spikes wipe its trace


@slow
@pytest.mark.parametrize("name", ["alif of 2019", "lstm"])
def test_without_carried_traces_it_is_decoupled_interfaces_but_for_the_states_seed(name):
    """Decoupled interfaces (plain autodiff of the window) seed the weights with `ds_K/dW` too, which e-prop 3 leaves
    to the traces: the difference is `seed . eps_K`, eps from zero at the window's start; 0 with no seed on the state.
    """
    case = Case(name)
    carry = case.start
    wave = lambda s: jnp.cos(1.0 + jnp.arange(s.size)).reshape(s.shape)  # noqa: E731
    state_seed, z_seed = jax.tree.map(wave, (traced(carry.state), carry.z))
    vectors = vectors_by_steps(case, case.x[:5]).synapses
    pairs = zip(jax.tree.leaves(state_seed), vectors, strict=True)
    through_state = sum(jnp.einsum("bn,bikn->ikn", seed, vector) for seed, vector in pairs)
    for seed_of_state in (1.0, 0.0):
        seed = (jax.tree.map(lambda s, f=seed_of_state: f * s, state_seed), z_seed)
        (_, plain, *at_start), _ = case.window(carry, slice(0, 5), seed)
        (_, found, *boundary), last = case.window(case.traces(carry), slice(0, 5), seed)
        check_alive(jnp.ones(9), found)
        assert difference(boundary, at_start) < EXACT
        whole = jnp.concatenate([found.w_in, found.w_rec, found.bias[None]]) + seed_of_state * through_state
        assert difference(Synapses(whole[:N_IN], whole[N_IN:-1], whole[-1]), plain) < EXACT
    zeroed = restart(last, carry, jnp.ones(BATCH, bool))
    again, _ = case.window(zeroed._replace(traces=settle(case.neuron, zeroed.traces)), slice(0, 5), seed)
    assert difference(again[1], found) < EXACT


@slow
@pytest.mark.parametrize("name", ["lstm", "lif"])
def test_with_a_seed_of_zero_it_is_eligibility_only_by_an_independent_derivation(name):
    """`L` of truncated BPTT by perturbing outputs window by window; the paper's traces, step by step, never reset."""
    case = Case(name, time=6)
    carry = case.traces(case.start)
    nothing = jax.tree.map(jnp.zeros_like, (traced(carry.state), carry.z))
    signals, summed = [], None

    @jax.jit
    def signals_of(x, target, carry):
        loss = lambda outputs: case.loss(outputs, target)  # noqa: E731
        return total_learning_signals(case.neuron, case.synapses, x, carry._replace(traces=None), loss)[1]

    for part in cuts((3, 3)):
        signals.append(signals_of(case.x[part], case.target[part], carry))
        (_, synapses, *_), carry = case.window(carry, part, nothing)
        summed = synapses if summed is None else jax.tree.map(jnp.add, summed, synapses)
    signals = jax.tree.map(lambda *s: jnp.concatenate(s), *signals)
    outputs, trajectory = record(case.neuron, case.synapses, case.x, case.start)
    expected, _ = jax.jit(lambda *a: stepwise_gradient(case.neuron, *a))(trajectory, signals)
    check_alive(recurrent_output(outputs), expected)
    assert difference(summed, split_presynaptic(expected, case.synapses)) < EXACT


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

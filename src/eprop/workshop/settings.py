"""Settings of a run: one frozen dataclass each, from which the command line is made."""

from dataclasses import dataclass, field, fields
from typing import Generic, Literal, TypeVar

from eprop.errors import require, require_at_most, require_choice, require_positive
from eprop.rules import Rule, make_rule
from eprop.workshop._populations import parse_populations, populations_as_text
from eprop.workshop.optimisers import check_optimiser

FREEZABLE = ("w_in", "w_rec", "bias", "readout", "embedding")
"""What can be frozen."""

CONSTRAINTS = ("density", "inhibitory", "weight_bounds", "populations", "delays", "freeze", "rewire")
"""Settings that constrain connections and weights."""

MapName = Literal["norm", "dense", "glu", "residual"]

NeuronName = Literal["lif", "alif", "lsnn", "lstm", "gru", "rate", "lru", "rtu", "min-gru", "elstm"]


@dataclass(frozen=True)
class NetworkSettings:
    """The network."""

    neuron: NeuronName = "lsnn"
    """Neuron model. lsnn: LIF and ALIF neurons mixed (see adaptive-fraction). lru, rtu, min-gru, elstm: no recurrent
    weights."""
    neurons: int = 100
    """Neurons a layer (in each direction, where bidirectional)."""
    layers: int = 1
    """Recurrent layers, one on the other."""
    bidirectional: bool = False
    """Each layer reads time in both directions."""
    maps: tuple[MapName, ...] = ()
    """Position-wise maps around each recurrent layer: norm (before it), dense or glu (behind it), residual (past all of
    it; the first layer has a dense map before it instead, where inputs have another width). Needs --tau-out None."""
    r_min: float = 0.0
    """Of lru and rtu: the smallest decay a step, at the start."""
    r_max: float = 1.0
    """Of lru and rtu: the largest decay a step, at the start."""
    embedding: int | None = None
    """Width of the trained embedding that symbols (words, characters) pass first; None: inputs are numbers."""
    adaptive_fraction: float = 0.5
    """Share of adaptive neurons in an lsnn."""
    tau_m: float = 20.0
    """Membrane time constant, ms."""
    tau_a: float = 2000.0
    """Time constant of threshold adaptation, ms."""
    tau_out: float | None = 20.0
    """Time constant of the readout's leak, ms; None: no leak."""
    v_th: float = 0.6
    """Firing threshold."""
    beta: float = 0.0174
    """Threshold increase a spike, of adaptive neurons."""
    n_refractory: int = 5
    """Smallest interval between spikes, steps; 1: no refractory period."""
    reset: Literal["subtract", "hard"] = "subtract"
    """What a spike does to the membrane: takes the threshold off, or sets it to 0 (lif neurons alone; NIR's reset)."""
    surrogate: Literal["triangular", "fast-sigmoid", "arctan", "gaussian"] = "triangular"
    """Pseudo-derivative of the spike."""
    gamma: float = 0.3
    """Dampening factor of the pseudo-derivative."""
    input_gain: Literal["one", "one-minus-alpha"] = "one"
    """Factor on the current into the membrane: one (2020) or 1-alpha (2019)."""
    adaptation_gain: Literal["one", "one-minus-rho"] = "one"
    """Factor on the spike into the adaptation: one (2020) or 1-rho (2019)."""
    threshold_scaling: Literal["baseline", "adaptive"] = "baseline"
    """The scale of v - A in an adaptive neuron: the baseline (2020) or the adaptive threshold (2019)."""
    pseudo_derivative_scaling: Literal["threshold", "none"] = "threshold"
    """Pseudo-derivative divided by v_th (2020) or not (the released e-prop 2 code)."""
    pseudo_derivative_in_refractory: bool = False
    """Keep the pseudo-derivative while refractory (the released e-prop 2 code)."""
    adaptation_masked: bool = True
    """Adaptation counts emitted spikes; if not: threshold crossings, also while refractory (TIMIT code)."""
    readout_gain: Literal["one", "one-minus-kappa"] = "one"
    """Factor on the output into the readout's leak: one, or 1-kappa (the tutorials)."""
    steps_per_frame: int = 1
    """Steps (ms) for which each step of the data is held; the readout sees the mean over them, then leaks."""
    read_all: bool = False
    """The readout reads all layers, not the last alone."""
    bias: bool = False
    """Neurons have a trained bias current."""
    autapses: bool | None = None
    """A neuron feeds itself; by default only in models that do not spike."""
    trainable: tuple[str, ...] = ()
    """Neuron constants to train as well, one value a neuron: tau_m v_th tau_a beta tau_out (nu theta; w_f w_g w_o)."""
    density: float = 1.0
    """Share of the synapses that exist, of inputs and recurrent ones, drawn at random; their number is fixed."""
    inhibitory: float = 0.0
    """Share of inhibitory neurons (Dale's law): their weights to other neurons stay at 0 or below, those of all others
    at 0 or above. They are the first of a layer. 0: weights have any sign."""
    weight_bounds: tuple[float, float] | None = None
    """Smallest and largest input and recurrent weight; None: none."""
    populations: str = ""
    """A TOML file with a table for each population of a layer: [fast], neurons = 80, constants of the neuron (tau_m =
    10.0), sign = "excitatory" or "inhibitory", delay = 2. Its contents are kept in the run folder."""
    delays: int = 0
    """Axonal delays: neuron i's spikes take i mod (this + 1) steps longer to other neurons (not to the readout)."""
    freeze: tuple[str, ...] = ()
    """What does not learn: w_in w_rec bias readout embedding; or of one population, w_rec:fast."""
    rewire: float | None = None
    """Synapses vanish where a weight crosses 0, and as many others grow (DEEP R): each weight shrinks by this much at
    each update (0 will do). Needs a density below 1."""
    rewire_noise: float = 0.0
    """Standard deviation of the noise that rewiring adds to each weight at each update."""
    weight_scale: float = 1.0
    """Factor on initial input and recurrent weights, N(0,1)/sqrt(number of inputs) each."""
    readout_scale: float | None = None
    """Standard deviation of initial readout weights; None: 1/sqrt(neurons)."""
    feedback_scale: float | None = None
    """Standard deviation of initial feedback weights; None: 1/sqrt(neurons that are read)."""
    adaptive_feedback_scale: float | None = None
    """The same, where feedback is adaptive; None: as feedback-scale."""
    synthesiser_hidden: tuple[int, ...] = ()
    """Hidden units of the synthetic-gradient module (e-prop 3), a number a layer; none: it is linear."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point precision."""

    def __post_init__(self) -> None:
        require_positive(neurons=self.neurons, layers=self.layers, tau_m=self.tau_m, tau_a=self.tau_a, v_th=self.v_th)
        require_positive(
            tau_out=self.tau_out, embedding=self.embedding, gamma=self.gamma, weight_scale=self.weight_scale
        )
        require_positive(feedback_scale=self.feedback_scale, adaptive_feedback_scale=self.adaptive_feedback_scale)
        require_at_most(10**6, neurons=self.neurons, layers=self.layers, embedding=self.embedding)
        require(self.n_refractory >= 1, f"n_refractory = {self.n_refractory}: must be at least 1 (1 means none)")
        require(
            all(h >= 1 for h in self.synthesiser_hidden),
            f"synthesiser_hidden = {self.synthesiser_hidden}: a hidden layer needs at least one unit",
        )
        require(
            self.reset == "subtract" or self.neuron == "lif",
            f"reset = {self.reset!r}: only lif neurons have a hard reset, and neuron is {self.neuron!r}",
        )
        require(self.beta >= 0, f"beta = {self.beta}: must be 0 or above")
        require(
            self.steps_per_frame == 1 or self.steps_per_frame > 1 and self.tau_out is not None,
            f"steps_per_frame = {self.steps_per_frame}: must be at least 1; above 1 it needs a leaky readout (tau-out)",
        )
        require(0 <= self.adaptive_fraction <= 1, f"adaptive_fraction = {self.adaptive_fraction}: must be from 0 to 1")
        self._check_constraints()
        self._check_maps()

    def _check_maps(self) -> None:
        """The maps, which stand around layers that run forwards and have no filter."""
        require(len(set(self.maps)) == len(self.maps), f"maps = {' '.join(self.maps)}: each at most once")
        both = {"dense", "glu"} <= set(self.maps)
        require(not both, "maps: dense and glu stand at one place, name one of them")
        require(
            not self.maps or self.tau_out is None,
            f"maps = {' '.join(self.maps)}: stand between neurons and readout, and tau_out = {self.tau_out} has a "
            "filter there; say --tau-out None",
        )
        require(not self.maps or not self.bidirectional, "maps: not around bidirectional layers")
        ring = f"r_min = {self.r_min}, r_max = {self.r_max}: must be 0 <= r_min < r_max <= 1"
        require(0 <= self.r_min < self.r_max <= 1, ring)

    def _check_constraints(self) -> None:
        """The numbers of biology's constraints; the network refuses what does not fit its neurons."""
        require(0 < self.density <= 1, f"density = {self.density}: must be above 0 and at most 1")
        require(self.delays >= 0, f"delays = {self.delays}: must be 0 or above")
        require(
            self.delays < self.neurons,
            f"delays = {self.delays}: neuron i has i mod (this + 1), and there are only {self.neurons} neurons",
        )
        require(0 <= self.inhibitory <= 1, f"inhibitory = {self.inhibitory}: must be from 0 to 1")
        some = self.inhibitory == 0 or round(self.inhibitory * self.neurons) >= 1
        require(some, f"inhibitory = {self.inhibitory}: makes none of {self.neurons} neurons inhibitory")
        for part in self.freeze:
            require_choice("freeze", part.partition(":")[0], FREEZABLE)
        plain = {name.partition(":")[0] for name in self.freeze if ":" in name} & {"readout", "embedding"}
        require(not plain, f"freeze: a population has no {', '.join(plain)} of its own")
        require(
            self.rewire is not None or self.rewire_noise == 0,
            f"rewire_noise = {self.rewire_noise}: without rewire nothing is rewired",
        )
        require(
            self.rewire is None or self.rewire >= 0,
            f"rewire = {self.rewire}: the rate must be 0 or above",
        )
        require(
            self.rewire is None or self.density < 1,
            f"rewire = {self.rewire}: with a density of 1 all synapses exist, none can grow",
        )
        if self.populations:
            object.__setattr__(self, "populations", populations_as_text(self.populations))
            require(self.inhibitory == 0, f"inhibitory = {self.inhibitory}: the populations say their signs themselves")
            own = any(p.delay for p in parse_populations(self.populations))
            require(not (own and self.delays), f"delays = {self.delays}: the populations have delays of their own")
            total = sum(p.size for p in parse_populations(self.populations))
            require(total == self.neurons, f"neurons = {self.neurons}: the populations have {total} together")

    @property
    def constraints(self) -> tuple[str, ...]:
        """The constraints that are set, by name."""
        plain = {f.name: f.default for f in fields(self)}
        return tuple(name for name in CONSTRAINTS if getattr(self, name) not in (plain[name], ()))


@dataclass(frozen=True)
class OptimiserSettings:
    """The optimiser and what is added to the loss."""

    optimiser: str = "adam"
    """Optimiser: adam, adamw, sgd, rmsprop, lion, or any other of optax that takes a learning rate."""
    optimiser_options: tuple[str, ...] = ()
    """Its options, as b1=0.95 weight_decay=0.01; others have optax's defaults."""
    learning_rate: float = 0.003
    """Learning rate."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon (adam alone; others have it among their options)."""
    decay_factor: float = 1.0
    """The learning rate is multiplied by this ..."""
    decay_every: int = 100
    """... every so many iterations."""
    cosine_decay: bool = False
    """The learning rate also falls to zero, along half a cosine, by the last iteration."""
    warmup: int = 0
    """Iterations in which the learning rate rises linearly from zero."""
    clip: float | None = None
    """Clip the gradient's global norm to this; None: do not."""
    rate_target: float = 10.0
    """Target firing rate of the regularisation, Hz."""
    rate_strength: float = 0.0
    """Strength c_reg of c_reg sum_j (f_j - target)^2, f in spikes a ms (spiking models only)."""
    weight_penalty: float = 0.0
    """Strength of the L2 penalty on trained weights."""
    synthesiser_learning_rate: float = 0.0003
    """Learning rate (Adam) of the synthetic-gradient module."""
    synthesiser_discount: float = 1.0
    """Synthetic gradients are multiplied by this where they enter a window (1: as derived). Below 1 the far future
    counts less, and a module that learns from its own predictions cannot drive them up."""
    update_every: Literal["window", "sequence"] = "window"
    """On tasks that come in windows: update the weights after each window, or once a sequence with the sum."""
    kolen_pollack_decay: float = 0.001
    """With adaptive feedback, W_out and B shrink by this share at each update."""

    def __post_init__(self) -> None:
        require_positive(learning_rate=self.learning_rate, decay_factor=self.decay_factor, clip=self.clip)
        require_positive(decay_every=self.decay_every, adam_epsilon=self.adam_epsilon)
        check_optimiser(self.optimiser, self.optimiser_options)
        require(
            self.optimiser == "adam" or self.adam_epsilon == 1e-8,
            f"adam_epsilon = {self.adam_epsilon}: {self.optimiser} does not use it; set it to its default, 1e-8"
            + (" (and eps among its optimiser-options)" if self.optimiser != "sgd" else ""),
        )
        own = [option for option in self.optimiser_options if option.partition("=")[0] == "eps"]
        require(
            self.optimiser != "adam" or not own or self.adam_epsilon == 1e-8,
            f"adam_epsilon = {self.adam_epsilon}: optimiser_options say {', '.join(own)}; set one of the two",
        )
        require_positive(synthesiser_learning_rate=self.synthesiser_learning_rate)
        require(
            0 <= self.synthesiser_discount <= 1,
            f"synthesiser_discount = {self.synthesiser_discount}: must be between 0 and 1",
        )
        require(self.warmup >= 0, f"warmup = {self.warmup}: must be 0 or above")
        require(self.rate_strength >= 0, f"rate_strength = {self.rate_strength}: must be 0 or above")
        require(
            0 <= self.kolen_pollack_decay < 1, f"kolen_pollack_decay = {self.kolen_pollack_decay}: must be in [0, 1)"
        )


@dataclass(frozen=True)
class RuleSettings:
    """The learning rule."""

    rule: str = "eprop1"
    """Learning rule: bptt, truncated_bptt, rtrl, eprop1, the window rules synthetic_gradients, eligibility_only
    and eprop3, or a control: immediate (eprop1 with its traces cut), fixed (recurrent weights stay); also with its
    option: eprop1:random, eprop3:4."""
    feedback: str | None = None
    """Where the feedback weights of eprop1 and immediate come from, where the rule's name does not say: symmetric (None
    is the same), random, adaptive, or uniform, a control."""
    window: int | None = None
    """Steps a window, for truncated_bptt and e-prop 3's family, where the rule's name does not say; None: 50."""

    def __post_init__(self) -> None:
        self.make()

    def make(self) -> Rule:
        """The rule itself."""
        return make_rule(self.rule, self.feedback, self.window)


@dataclass(frozen=True)
class RunSettings:
    """How long, from which seed."""

    seed: int = 0
    """Random seed, of weights and data."""
    iterations: int = 1000
    """Updates of the weights."""
    batch: int = 1
    """Samples an update."""
    evaluate_every: int = 10
    """Iterations between evaluations on held-out data (a line of metrics.jsonl each)."""
    evaluation_batch: int | None = None
    """Samples of an evaluation; None: as many as `batch`."""
    update_window: int | None = None
    """Learn online: update the weights every so many steps within a sequence, traces carried; None: once a sequence."""
    stop_below: float | None = None
    """Stop once the metric, evaluated, is below this; None: run all iterations."""

    def __post_init__(self) -> None:
        require(self.iterations >= 1, f"iterations = {self.iterations}: must be at least 1")
        require(self.batch >= 1, f"batch = {self.batch}: must be at least 1")
        require(self.evaluate_every >= 1, f"evaluate_every = {self.evaluate_every}: must be at least 1")
        require(0 <= self.seed < 2**31, f"seed = {self.seed}: must be from 0 to 2^31 - 1")
        require_positive(evaluation_batch=self.evaluation_batch, update_window=self.update_window)
        require_at_most(10**6, batch=self.batch, evaluation_batch=self.evaluation_batch)


@dataclass(frozen=True)
class OneShotSettings:
    """Learning to learn: the inner update, the error module, and the spikes that tell both what is asked for."""

    learning_signal: Literal["error-module", "random", "symmetric", "bptt"] = "error-module"
    """The source of the inner update's learning signals: error-module (e-prop 2); the loss's error broadcast through
    random weights or through W_out (e-prop 1); bptt: the loss's exact gradient."""
    inner_learning_rate: float = 1e-4
    """Learning rate of the inner update."""
    train_inner_learning_rate: bool = False
    """The outer loop trains it too (its logarithm)."""
    inner_updates: int = 1
    """Training trials before the test trial, each with an update of its own."""
    module_neuron: NeuronName = "lif"
    """Neuron model of the error module; its constants are the network's."""
    module_neurons: int = 300
    """Neurons of the error module."""
    module_input: Literal["target", "error"] = "target"
    """The module's input beside the spikes: the target, or the output's distance from it."""
    code_neurons: int = 100
    """Neurons a coordinate that tell the module's input."""
    code_width: float = 10.0
    """Width of their tuning curves, in distances between neurons (10: sigma = 0.2 for 100 neurons over [-1, 1])."""
    code_rate: float = 200.0
    """Rate of a neuron whose preferred value is met, Hz."""
    clock_groups: int = 5
    """Groups of clock neurons, active one after the other."""
    clock_neurons: int = 2
    """Clock neurons a group."""
    clock_period: float = 10.0
    """Time between the spikes of an active clock neuron, ms."""
    network_rate: float = 20.0
    """Target firing rate of the network, Hz (see rate-strength)."""
    module_rate: float = 10.0
    """Target firing rate of the module, Hz."""
    micro_batch: int | None = None
    """Tasks whose gradients are computed at once, then added up, to save memory; None: all of the batch."""
    rematerialise: bool = False
    """Compute each trial again in the outer backward pass, to save memory."""

    def __post_init__(self) -> None:
        require_positive(inner_learning_rate=self.inner_learning_rate, inner_updates=self.inner_updates)
        require_positive(module_neurons=self.module_neurons, code_neurons=self.code_neurons, code_rate=self.code_rate)
        require_positive(code_width=self.code_width, clock_groups=self.clock_groups, clock_neurons=self.clock_neurons)
        require_positive(clock_period=self.clock_period, micro_batch=self.micro_batch)
        for name in ("network_rate", "module_rate"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be 0 or above")


T = TypeVar("T")


@dataclass(frozen=True)
class Experiment(Generic[T]):
    """A whole experiment: task, network, optimiser, run, rule."""

    task: T  # a Task; not imported here, since each task's file builds its published settings of these classes
    network: NetworkSettings = field(default_factory=NetworkSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)
    rule: RuleSettings = field(default_factory=RuleSettings)

    def __post_init__(self) -> None:
        require(
            self.run.stop_below is None or getattr(self.task, "lower_is_better", True),
            f"stop_below = {self.run.stop_below}: not for this task, whose metric rises while it learns",
        )
        require(
            self.run.update_window is None or self.optimiser.weight_penalty == 0,
            f"weight_penalty = {self.optimiser.weight_penalty}: not with update_window; set one of the two alone",
        )

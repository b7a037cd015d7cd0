"""Eligibility traces for any neuron model: the stepwise reference, the windowed engine, the unroll."""

from eprop.eligibility._carry import dense_traces as dense_traces
from eprop.eligibility._stepwise import dense_zero_traces as dense_zero_traces
from eprop.eligibility._stepwise import eligibility_step as eligibility_step
from eprop.eligibility._stepwise import eligibility_traces as eligibility_traces
from eprop.eligibility._stepwise import stepwise_gradient as stepwise_gradient
from eprop.eligibility._structure import trace_structure as trace_structure
from eprop.eligibility._trajectory import Carry as Carry
from eprop.eligibility._trajectory import Gradients as Gradients
from eprop.eligibility._trajectory import Synapses as Synapses
from eprop.eligibility._trajectory import Traces as Traces
from eprop.eligibility._trajectory import Trajectory as Trajectory
from eprop.eligibility._trajectory import record as record
from eprop.eligibility._trajectory import split_presynaptic as split_presynaptic
from eprop.eligibility._trajectory import start as start
from eprop.eligibility._trial import Trial as Trial
from eprop.eligibility._trial import input_drive as input_drive
from eprop.eligibility._trial import run_exact as run_exact
from eprop.eligibility._trial import sample_gradients as sample_gradients
from eprop.eligibility._trial import trial as trial
from eprop.eligibility._unroll import total_learning_signals as total_learning_signals
from eprop.eligibility._unroll import unroll as unroll
from eprop.eligibility._unroll import unroll_exact as unroll_exact
from eprop.eligibility._unroll import with_traces as with_traces
from eprop.eligibility._windowed import windowed_gradient as windowed_gradient

"""Eligibility traces for any neuron model: the unroll, its stepwise reference, and what windows hand on."""

from eprop.eligibility import stepwise as stepwise
from eprop.eligibility._delays import DelayLine as DelayLine
from eprop.eligibility._structure import trace_structure as trace_structure
from eprop.eligibility._traces import dense_vectors as dense_vectors
from eprop.eligibility._traces import restart as restart
from eprop.eligibility._traces import settle as settle
from eprop.eligibility._traces import settle_if as settle_if
from eprop.eligibility._traces import with_traces as with_traces
from eprop.eligibility._types import Carry as Carry
from eprop.eligibility._types import Synapses as Synapses
from eprop.eligibility._types import Traces as Traces
from eprop.eligibility._types import split_presynaptic as split_presynaptic
from eprop.eligibility._types import start as start
from eprop.eligibility._unroll import Read as Read
from eprop.eligibility._unroll import Recurrence as Recurrence
from eprop.eligibility._unroll import unroll as unroll
from eprop.eligibility.stepwise import Trajectory as Trajectory
from eprop.eligibility.stepwise import eligibility_traces as eligibility_traces
from eprop.eligibility.stepwise import record as record
from eprop.eligibility.stepwise import stepwise_gradient as stepwise_gradient
from eprop.eligibility.stepwise import total_learning_signals as total_learning_signals

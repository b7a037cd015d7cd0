"""Networks: weights around a neuron model, stacked and bidirectional layers, heads, and what a rule trains of them.

Axes are `[time, batch, neuron]` and weights `[presynaptic, current, postsynaptic]` throughout.
"""

from eprop.networks._block import Block as Block
from eprop.networks._block import Dense as Dense
from eprop.networks._block import GatedLinearUnit as GatedLinearUnit
from eprop.networks._block import LayerNorm as LayerNorm
from eprop.networks._constraints import SIGNS as SIGNS
from eprop.networks._constraints import Population as Population
from eprop.networks._constraints import Rewiring as Rewiring
from eprop.networks._constraints import apply_updates as apply_updates
from eprop.networks._constraints import random_mask as random_mask
from eprop.networks._layers import Bidirectional as Bidirectional
from eprop.networks._layers import LayerOutput as LayerOutput
from eprop.networks._layers import Recurrent as Recurrent
from eprop.networks._layers import hold as hold
from eprop.networks._network import Embedding as Embedding
from eprop.networks._network import Network as Network
from eprop.networks._network import NetworkOutput as NetworkOutput
from eprop.networks._readout import Broadcast as Broadcast
from eprop.networks._readout import Head as Head
from eprop.networks._readout import Readout as Readout
from eprop.networks._trained import kolen_pollack_decay as kolen_pollack_decay
from eprop.networks._trained import partition as partition
from eprop.networks._trained import trainable as trainable
from eprop.networks._trained import value_and_grad as value_and_grad

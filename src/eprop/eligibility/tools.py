"""Pieces for who writes a rule or a reference of his own: products, currents, constants, gradients."""

from eprop.eligibility._delays import newest as newest
from eprop.eligibility._delays import pushed as pushed
from eprop.eligibility._delays import seen as seen
from eprop.eligibility._delays import shift as shift
from eprop.eligibility._types import contract_presynaptic as contract_presynaptic
from eprop.eligibility._types import filled as filled
from eprop.eligibility._types import gather as gather
from eprop.eligibility._types import input_currents as input_currents
from eprop.eligibility._types import presynaptic_activity as presynaptic_activity
from eprop.eligibility._types import split_constants as split_constants
from eprop.eligibility._types import spread as spread
from eprop.eligibility._types import unstack_currents as unstack_currents
from eprop.eligibility._types import with_gradient as with_gradient
from eprop.eligibility._types import zeros_of as zeros_of

"""The way out to other tools: NIR for what it can say, safetensors and npz for everything."""

from eprop.interop._arrays import from_npz as from_npz
from eprop.interop._arrays import from_safetensors as from_safetensors
from eprop.interop._arrays import named_arrays as named_arrays
from eprop.interop._arrays import to_npz as to_npz
from eprop.interop._arrays import to_safetensors as to_safetensors
from eprop.interop._from_nir import from_nir as from_nir
from eprop.interop._loihi import to_loihi_rule as to_loihi_rule
from eprop.interop._nir import NIRExport as NIRExport
from eprop.interop._nir import require_nir as require_nir
from eprop.interop._nir import to_nir as to_nir

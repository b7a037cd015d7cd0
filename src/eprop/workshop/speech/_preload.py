"""The imports of the server that worker processes are forked off, made before the first fork.

JAX is imported with the package but never started there: it has no threads, and its warning about forks is void.
"""

import contextlib
import importlib
import warnings

for module in ("eprop.workshop.speech", "scipy.signal", "soundfile", "python_speech_features"):
    with contextlib.suppress(ImportError):  # whoever needs it says what is missing
        importlib.import_module(module)

warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)

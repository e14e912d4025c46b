__version__ = "0.1.0"

from . import later  # noqa: E402, F401  before torch: it sets what torch reads when it is loaded

"""edgeq: from a trained float model to an INT8 model that runs fast on a named device, proven there."""

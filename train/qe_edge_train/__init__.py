"""Training of tapped regression heads on decoders: ALOPE (arXiv 2508.07484), mid-align (arXiv 2502.14830) and AlphaLoRA
(arXiv 2410.10054)."""

import logging

# on every import it warns that a kernel is not installed which nothing here needs
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

"""Training of tapped regression heads on decoder language models: ALOPE (arXiv 2508.07484), with alignment of a middle
layer across languages (mid-align, arXiv 2502.14830) and adapters sized by layer quality (AlphaLoRA, arXiv 2410.10054)."""

import logging

# on every import it warns that a kernel is not installed which nothing here needs
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

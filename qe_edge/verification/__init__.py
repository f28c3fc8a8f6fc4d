"""What a bundle from a stranger may hold: checks of its files, made before ONNX Runtime or the tokenizer see them.

A stranger's hashes agree with the stranger's files, so each file is also held against what `qe-edge export` writes.
What it never writes is refused. `qe_edge.bundle` calls these checks; docs/bundle.md lists them.
"""

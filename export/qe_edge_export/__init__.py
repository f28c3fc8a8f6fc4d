"""Export of a training run as a bundle: merge, cut, graph, quantise, gate, write. Needs the extra `export`."""

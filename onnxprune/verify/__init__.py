"""Compares a changed model with the original: are they equal, as the law says, or how far apart.

`law` proves that a pruned model computes what the masked one does, and holds the tolerance; `float64` decides what float32
cannot; `inputs` takes sizes that `shapes.probes` proposes and draws values that say something; `metrics` scores a model on
evaluation samples; `divergence` and `suffix` measure how far outputs drift; `structure` compares models without running them.

Change here: the tolerance of the proof (`law`), its inputs (`inputs`), or a metric (`metrics`).
"""

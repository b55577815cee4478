"""How a changed model is compared with the original: equal by law, or how far off.

`law` proves that a pruned model computes what the masked one does, and holds the tolerance; `float64` decides what float32
cannot; `metrics` scores a model on evaluation samples; `divergence` and `suffix` measure how far outputs drift.

Change here: the tolerance and inputs of the proof (`law`), or a metric (`metrics`).
"""

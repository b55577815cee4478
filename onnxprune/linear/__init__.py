"""Layers as least squares problems, and their repair.

`layers` finds the nodes that are linear maps, `im2col` says where convolutions read, `moments` gathers what they read on
samples, `regression` and `ridge` solve for the best weights, `reconstruction` pairs layers of the pruned network with what the
original's put out, `batchnorm` writes through normalisations, `obs` scores and repairs by structured optimal brain surgery,
`rotation` finds the basis in which a group is cut best.

Change here: how weights are repaired without training.
"""

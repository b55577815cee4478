"""Layers as least squares problems, and their repair.

`layers` finds the readers: nodes that are linear maps. `roles` and `rows` write their tensors and activations as matrices,
`im2col` with the positions that convolutions read; `batchnorm` is the normalisation behind one. `moments` gathers statistics of
what readers read, `regression` and `ridge` solve for the best weights (`definite` has the systems), `reconstruction` sets the
outputs of the original as targets for the pruned network, `obs` scores and repairs by structured optimal brain surgery.
`rotation` finds the basis in which a group is cut best, `linear_groups` the groups that have one, `strands` where they run
through tensors.

Change here: how weights are repaired without training.
"""

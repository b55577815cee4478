"""What can be removed without changing what the model computes: dead, constant and duplicated channels.

`value_numbering` finds what is always equal, `intervals` what is always within bounds, `slices` and `hashing` compare parts of
tensors, `affine` are the readers that a rewrite can change, `search` decides what goes.

Change here: what is recognised as dead, constant or duplicated.
"""

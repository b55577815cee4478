"""Dead, constant and duplicated channels: positions that can be removed while the model computes the same.

`value_numbering` finds slices of tensors that are always equal, with `slices` and `hashing`, and bounds of their entries, with
`intervals`. `affine` are the readers that a rewrite can change, `columns` the columns of their matrices; `search` decides what
goes.

Change here: which channels are recognised as dead, constant or duplicated.
"""

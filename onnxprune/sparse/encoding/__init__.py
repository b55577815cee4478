"""Encodings that store sparse weights in fewer bytes, one a file.

`flat` is the weight as one row of elements; `bitmask`, `gaps`, `delta`, `n_of_m` and `coo` encode it; `choose` knows them all
and takes the smallest; `decoder` writes the nodes that make the weight again, `recognize` finds and computes them, by the exact
`forms` that a decoder may have; `accounting` counts bytes.

Change here: add an encoding, or how one is chosen.
"""

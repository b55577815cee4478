"""Holds the graph: the protobuf, its weights beside it, and the files that it is read from and written to.

``Model`` (`model`) edits the protobuf and keeps weights as handles that are read, or computed, on demand (`weights`).
`node` shows one node to everything that asks about operators; `control_flow` tells which values inside a body are which
outside; `toposort` orders nodes; `subgraph` makes a model of some of them; `precision` copies models to float32;
`discontinuities` finds choices that rounding can tip. `outputs` makes files appear whole or not at all, `files` writes models in
one or in two, and `needed` tells which data files may go; `temporary` makes folders that go, too. `folders` finds the model in a
folder of Hugging Face, and what belongs to it.

Change here: how models are loaded, edited and saved. What an operator *means* is `onnxprune.axes.rules`.
"""

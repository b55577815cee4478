"""Other tools that carry out our commands, one module for each.

`olive` has passes for Olive, which `olive_config` makes known to it; `optimum` is a command of ``optimum-cli``, which
`register/` makes known to that. Their options are those of our command line, made from the same declarations. `github` carries
out a recipe in a workflow, and keeps a comment on the pull request.

Change here: how another tool calls onnxprune. What is computed is in `onnxprune.driver`.
"""

"""One command on one model: passes in their order, from a file to a result and its report.

`prune`, `lossless`, `sparsify`, `quantize`, `optimize` and `encode` are the commands. `compiler` makes a model for any target;
`prepared` is what it knows before there is one. `search` finds targets that are measured, `exponents` tries ways to share one
out, and `proof` finds the groups that break the law. `levers`, `trials`, `mixing` and `distilling` are the parts of `optimize`.
`report` and `result` are what commands return, `costs` counts what these say, and `progress` is what they tell on the way.
`destination` is where models are written, `tracking` logs what was done to MLflow.

Change here: which passes a command runs, and what it reports.
"""

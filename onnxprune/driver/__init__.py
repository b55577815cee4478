"""One command on one model: passes in their order, from a file to a result and its report.

`prune`, `lossless`, `sparsify`, `quantize` and `encode` are the commands; `compiler` holds what does not depend on the target;
`search` finds targets that are measured; `report` and `result` are what commands return.

Change here: which passes a command runs, and what it reports.
"""

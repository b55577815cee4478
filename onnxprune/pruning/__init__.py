"""The choice of the positions that go: scores, costs, and widths.

`criteria` scores positions by weights, `data_criteria` by samples, `gradient_criteria` names those that PyTorch computes;
`cost` counts MACs, parameters and bytes under any widths. `allocation` chooses widths from scores and `knapsack` from measured
errors, both by the steps of `width_search`. `lossless` finds what can go without any change, and `branches` the terms of sums.

Change here: a criterion, a cost, or how a target is shared out.
"""

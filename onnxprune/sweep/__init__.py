"""Sweeps: many settings of many models, each result worked out once, by processes of this machine or of a cluster.

`grids` expands what a user writes into settings, `inputs` says which files these read, `tasks` makes pure tasks of both, each
with a key that says all that its result depends on. `store` keeps results by that key, in a folder or any other of the `places`
that fsspec reaches; `index` is a database of what is in it. `work` is what a worker does with one task, `room` how much memory
that takes, `schedule` the order in which tasks may start. `run` carries a sweep out, `latencies` times what came of it. `summary`
reads the results: rows, Pareto fronts, the best of them; `picking` copies those. `asked` is what is to be done, `runner` hands
tasks out and takes in what comes back. `search` chooses settings one after the other, `preview` says what they promise, and
`searching` has them tried.

Change here: what a task depends on (`tasks`), where results lie (`store`), what is shared between tasks (`work`, `schedule`).
"""

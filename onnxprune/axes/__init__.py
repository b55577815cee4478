"""The calculus of axes: how operators pass them on, and which positions therefore can only be removed together.

`equation` reads rules as text, `rules` has one function for each operator, `factors` unifies axes and maps indices. `graph_axes`
states the equations of a graph, one for each node (`node_axes`); `coupling` collects its groups and `refusals`, `zeros` checks
where removed positions must be zero. `plan` says which positions of each group stay.

Change here: how an operator is understood (`rules`), and what becomes a group (`coupling`).
"""

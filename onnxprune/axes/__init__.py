"""The calculus of axes: what an operator does to them, and what therefore can only be removed together.

`equation` reads rules as text, `rules` has one function for each operator, `factors` unifies axes and maps indices,
`coupling` makes groups and refusals of a graph, `zeros` checks where removed positions must be zero, `plan` says which
positions of each group stay, `refusals` why some cannot go.

Change here: how an operator is understood (`rules`), and what becomes a group (`coupling`).
"""

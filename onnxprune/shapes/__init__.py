"""The shape of every value, and which sizes are dynamic.

`candidates` proposes sizes for open dimensions, first those that are known, with `formulas` for names that are arithmetic and
`demands` for sizes that a graph asks for, which `clashes` shows; `probes` infers shapes twice with different ones, and compares;
`dependence` follows what depends on a dynamic size, also where it did not move between the probes; `inference` is one probe;
`binding` writes the sizes of a probe into a graph; `size_arithmetic` computes the arithmetic on sizes that exporters write into
graphs.

Change here: which sizes are tried (`candidates`), what counts as dynamic (`dependence`), and how the
shape of an operator's output is found.
"""

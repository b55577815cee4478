"""Sparse weights: which elements may be zero together, which shall be, what the others become, and how that is stored."""

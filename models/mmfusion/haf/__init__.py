"""HAF: salient objects in a colour image with registered depth.

Chen, Liu, Liang, Cui, "Hamiltonian Asymmetric Fusion", ICML 2026, PMLR 306:15638-15657.
"""

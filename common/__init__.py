"""The science of xsite: data, network, objective, training and evaluation.

Nothing in this package imports Flower or Ray, or opens a socket.
"""

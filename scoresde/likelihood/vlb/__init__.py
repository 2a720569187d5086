"""Variational bounds on log p(x): in continuous time, and of DDPM's reverse chain."""

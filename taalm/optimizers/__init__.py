"""Optimizers of theta's adaptation."""

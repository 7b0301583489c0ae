"""Registering, gating and promoting as a KFP component."""

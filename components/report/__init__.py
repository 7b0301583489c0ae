"""The run report as a KFP component."""

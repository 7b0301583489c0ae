"""The evaluation stage as a KFP component."""

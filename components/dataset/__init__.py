"""The dataset stage as a KFP component."""

"""The fine-tuning stage as a KFP component."""

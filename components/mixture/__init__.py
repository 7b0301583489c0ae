"""The SFT-mixture stage as a KFP component."""

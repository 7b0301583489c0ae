"""The key-frame stage as KFP components."""

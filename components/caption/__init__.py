"""The captioning stage as KFP components."""

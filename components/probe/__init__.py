"""The probe stage as KFP components."""

"""The probe stage as a KFP component."""

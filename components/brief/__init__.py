"""The brief-caption stage as a KFP component."""

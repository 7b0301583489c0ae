"""The de-duplication stage as a KFP component."""

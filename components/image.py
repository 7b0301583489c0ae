"""The image every component names until a compile puts a real one in its place."""

# `share4video pipeline compile --image REPOSITORY@sha256:DIGEST` replaces it. The word python keeps KFP's
# local runner from warning, on every task, that the image is not a Python one.
PLACEHOLDER_IMAGE = "share4video-python"

"""The HTTP front of a served model: takes clips, sends the model the one image it was trained on."""

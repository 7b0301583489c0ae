"""A web page on which to chat about a clip and to caption one; only `app` and the tabs know Gradio."""

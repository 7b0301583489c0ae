"""The released ShareCaptioner-Video (InternLM-XComposer2-4KHD) behind the OpenAI protocol, on its old stack.

No current server runs these weights: they come with code of their own, which wants libraries of the middle
of 2024. So this package stands alone. It runs in an image of its own (``images/legacy-captioner``) on Python
3.10 with ``requirements.txt`` beside it, and of the rest it uses `share4video.errors` and
`share4video.media.compose`, which need Pillow and nothing else. See ``README.md``.

    trust     which files may run, by their hashes
    wrapper   the chat tokens the model was trained on
    protocol  a chat request as one question: checked, bounded
    server    HTTP
    model     the weights. NEVER RUN WITH THE REAL ONES by whoever wrote it: see there
"""

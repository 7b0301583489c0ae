"""Serve the released captioner, or list the files that are to be trusted.

python -m serving.legacy_captioner list --model FOLDER [--hub FOLDER] > allowed.sha256
python -m serving.legacy_captioner serve --model FOLDER --revision COMMIT --allow allowed.sha256
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import threading
from pathlib import Path

from serving.legacy_captioner.protocol import Budgets
from serving.legacy_captioner.server import CaptionServer
from serving.legacy_captioner.trust import (
    hashes_of,
    read_list,
    require_own_code,
    require_trusted,
    write_cache_version,
)
from share4video.errors import USER_ERROR_EXIT_CODE, UserError

NAME = "Lin-Chen/ShareCaptioner-Video"
# What transformers takes, before HF_HUB_CACHE, for the place of what it loads by name.
_OLD_CACHES = ("PYTORCH_PRETRAINED_BERT_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "TRANSFORMERS_CACHE")
WARNING = (
    "THIS SERVER RUNS PYTHON CODE THAT CAME WITH THE WEIGHTS (trust_remote_code). It is on for these files "
    "and no others:"
)
PICKLE_WARNING = "PICKLES ARE TAKEN (--allow-pickle): such weights may hold code, too, which nobody can read"


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        folders = {"model": options.model, **({"hub": options.hub} if options.hub else {})}
        if options.verb == "list" and options.hub:
            write_cache_version(options.hub)
        found = hashes_of(
            folders, lambda name: print(f"hashing {name}", file=sys.stderr), allow_pickle=options.allow_pickle
        )
        if options.verb == "list":
            for name, digest in found.items():
                print(f"{digest}  {name}")
            return 0
        with tempfile.TemporaryDirectory() as scratch:
            return _serve(options, found, Path(scratch))
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    except KeyboardInterrupt:  # how a container of it is stopped, too
        return 0


def _serve(options: argparse.Namespace, found: dict[str, str], scratch: Path) -> int:
    """Serve until the GPU fails the process; return its exit code."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", options.revision):
        raise UserError(
            "the revision is not a commit",
            where=options.revision,
            fix="give the whole commit hash the folder was downloaded at",
        )
    require_trusted(found, read_list(options.allow))
    require_own_code(options.model)
    print(WARNING, file=sys.stderr)
    if options.allow_pickle:
        print(PICKLE_WARNING, file=sys.stderr)
    for name, digest in found.items():
        print(f"  {digest}  {name}", file=sys.stderr)
    print(f"  revision {options.revision}", file=sys.stderr, flush=True)
    # before transformers is imported: it reads these once, and nothing may be fetched
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for name in _OLD_CACHES:
        os.environ.pop(name, None)
    os.environ["HF_HUB_CACHE"] = str(options.hub or scratch / "hub")  # without one nothing is found by name
    os.environ["HF_MODULES_CACHE"] = str(scratch / "modules")  # no code that another run left there
    budgets = Budgets(most=options.max_tiles, other=options.tiles)
    try:
        server = CaptionServer(options.host, options.port, options.name, budgets)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise UserError(f"cannot listen: {error.strerror}", where=where, fix="choose another port") from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://{options.host}:{server.server_address[1]}/v1", flush=True)
        from serving.legacy_captioner.model import XComposer2

        server.captioner = XComposer2(options.model)
        logging.getLogger(__name__).info("the model is loaded")
        server.broken.wait()
        server.shutdown()
    print("the GPU has failed; start the server anew", file=sys.stderr)
    return 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.legacy_captioner", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="print the hashes of the files, to be read and kept")
    serving = verbs.add_parser("serve", help="serve the model")
    for verb in (listing, serving):
        verb.add_argument("--model", type=Path, required=True, help="the checkpoint's folder with its code")
        verb.add_argument("--allow-pickle", action="store_true", help="take weights that are pickles, too")
        verb.add_argument("--hub", type=Path, help="a hub cache with what that code loads by name (CLIP)")
    serving.add_argument("--allow", type=Path, required=True, help="the list that `list` printed")
    serving.add_argument("--revision", required=True, help="the commit the folder was downloaded at")
    serving.add_argument("--name", default=NAME, help="what requests call the model")
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=8000)
    serving.add_argument("--max-tiles", type=int, default=16, help="of pictures that come as whole tiles")
    serving.add_argument("--tiles", type=int, default=9, help="of other pictures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

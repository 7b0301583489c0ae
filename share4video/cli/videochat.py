"""``share4video videochat convert|train``: VideoChat from its released files, and its two training stages."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from share4video.cli.options import ConfigOption, SetOption, read_settings
from share4video.errors import UserError

app = typer.Typer(no_args_is_help=True, help="VideoChat: make a model folder, and train it.")

OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write, new.")]


@app.command("convert")
def convert(
    out: OutOption,
    language_model: Annotated[
        Path,
        typer.Option("--language-model", metavar="DIR", help="Its transformers folder."),
    ],
    weights: Annotated[
        list[Path],
        typer.Option(
            "--weights",
            metavar="FILE",
            help="eva_vit_g.pth, blip2_pretrained_flant5xxl.pth, and VideoChat's own; may be repeated.",
        ),
    ],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float16",
    architecture: Annotated[
        Path | None,
        typer.Option("--architecture", metavar="FILE", help="JSON of other settings than the released ones."),
    ] = None,
) -> None:
    """Make a VideoChat folder of the released files; without VideoChat's own, one to train from stage 1."""
    from share4video.models.videochat import convert as conversion

    _quieten()
    settings = None if architecture is None else conversion.read_config(architecture)
    report = conversion.convert(language_model, weights, out, dtype=dtype, config=settings)
    typer.echo(str(out))
    if report.fresh:
        typer.echo(f"not in any file, to be trained: {', '.join(report.fresh)}", err=True)


@app.command("train")
def train(
    out: OutOption,
    stage: Annotated[int, typer.Option(min=1, max=2, help="1 learns captions, 2 conversations.")],
    model: Annotated[
        Path, typer.Option("--model", "-m", metavar="DIR", help="The VideoChat folder to start from.")
    ],
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", metavar="FILE", help="VideoChat's JSON; may be repeated."),
    ],
    media: Annotated[
        Path | None,
        typer.Option("--media", metavar="DIR", help="What paths in it start from; else its own folder."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Train VideoChat on videos and pictures with captions or conversations; a killed run goes on."""
    wanted = read_settings(config, settings).videochat
    chosen = wanted.stage1 if stage == 1 else wanted.stage2
    folders = {file.parent for file in data}
    if media is None and len(folders) > 1:
        raise UserError("the training files lie in several folders", where="--data", fix="give --media")
    root = media or folders.pop()
    if not root.is_dir():
        raise UserError("there is no such folder", where=str(root), fix="give --media")

    from share4video.models.videochat import training
    from share4video.store import LocalStore
    from share4video.training.checkpoint import TrainingStates
    from share4video.whole_folder import check_new, whole_folder

    _quieten()
    training.refuse_several_devices()
    check_new(out)
    number: Literal[1, 2] = 1 if stage == 1 else 2
    key = training.training_key(data, model, number, chosen)
    states = TrainingStates(LocalStore(out.absolute().parent / f".{out.name}-states"), key)
    with (
        tempfile.TemporaryDirectory(prefix="share4video-videochat-") as work,
        whole_folder(out.absolute()) as folder,
        Progress(console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task("loading", total=None)
        report = training.train(
            data,
            root,
            model,
            folder,
            number,
            chosen,
            work=Path(work),
            states=states,
            progress=lambda label, done, total: bar.update(
                task, description=label, completed=done, total=total
            ),
        )
    shutil.rmtree(out.absolute().parent / f".{out.name}-states", ignore_errors=True)
    typer.echo(
        f"{report.trained_samples} samples, {len(report.rejected)} rejected; {report.steps} steps, "
        f"loss {report.loss_first:.3f} to {report.loss_last:.3f}"
    )
    typer.echo(str(out))


def _quieten() -> None:
    """Keep transformers' bars and advice out of the view; its errors are raised all the same."""
    from transformers.utils import logging

    library: Any = logging
    library.disable_progress_bar()
    library.set_verbosity_error()

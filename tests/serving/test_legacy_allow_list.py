"""Which files the legacy captioner trusts, and its command line."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from PIL import Image

from serving.legacy_captioner.trust import hashes_of, read_list, require_own_code, require_trusted
from share4video.captioning.client import text_part
from share4video.errors import UserError
from tests.serving.legacy_client import ask

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "serving" / "legacy_captioner"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as far as what is trusted goes."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Model"}}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "modeling.py").write_text("print('hello')")
    (folder / "deep" / "weights.safetensors").write_bytes(b"0" * 3000)
    return folder


def test_exactly_the_listed_files_are_trusted(folder: Path, tmp_path: Path) -> None:
    found = hashes_of({"model": folder})
    assert found["model/modeling.py"] == hashlib.sha256(b"print('hello')").hexdigest()
    assert set(found) == {f"model/{p.relative_to(folder)}" for p in folder.rglob("*") if p.is_file()}
    listed = tmp_path / "allowed"
    listed.write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()))
    require_trusted(found, read_list(listed))
    with pytest.raises(UserError, match="not on the allow-list"):
        require_trusted({**found, "model/extra.py": "0" * 64}, read_list(listed))
    with pytest.raises(UserError, match="is missing"):
        require_trusted(dict(list(found.items())[1:]), read_list(listed))
    (folder / "modeling.py").write_text("print('hellO')")
    with pytest.raises(UserError, match=r"not the one on the allow-list \(model/modeling.py\)"):
        require_trusted(hashes_of({"model": folder}), read_list(listed))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "deep/a.pt", "a.PTH", "a.pkl", "a.ckpt"])
def test_pickles_are_refused_unless_they_are_asked_for(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(UserError, match=re.escape(f"can run code when it is loaded (model/{name})")):
        hashes_of({"model": folder})
    assert f"model/{name}" in hashes_of({"model": folder}, allow_pickle=True)


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("")
    (folder / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(UserError, match="a link leads out of the folder"):
        hashes_of({"model": folder})


def test_code_of_another_repository_is_refused(folder: Path) -> None:
    require_own_code(folder)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "internlm/base--modeling.Model"}}')
    with pytest.raises(UserError, match="names code of another repository"):
        require_own_code(folder)


@pytest.mark.parametrize("text", ["", "abc  model/config.json", "0" * 64 + " model/x"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "allowed").write_text(text)
    with pytest.raises(UserError, match="allow-list"):
        read_list(tmp_path / "allowed")


def command(*arguments: str, code: str = "") -> list[str]:
    """Return the command, or with ``code`` the same after that."""
    run = "import sys; from serving.legacy_captioner.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", f"{code}\n{run}", *arguments]


def test_the_command_lists_refuses_and_serves(folder: Path, tmp_path: Path) -> None:
    def done(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)

    hub = tmp_path / "hub"
    hub.mkdir()
    of_hub = done("list", "--model", str(folder), "--hub", str(hub))
    assert f"{hashlib.sha256(b'1').hexdigest()}  hub/version.txt\n" in of_hub.stdout  # as transformers does
    listed = done("list", "--model", str(folder))
    assert (listed.returncode, "hub/" in listed.stdout) == (0, False)
    allowed = tmp_path / "allowed"
    allowed.write_text(listed.stdout)
    given = ["serve", "--model", str(folder), "--allow", str(allowed), "--port", "0"]
    for wrong, said in (
        (["--revision", "main"], "the revision is not a commit"),
        (
            ["--revision", "a" * 40, "--model", "Lin-Chen/ShareCaptioner-Video"],
            "names on a hub are not taken",
        ),
    ):
        refused = done(*given, *wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr
    (folder / "added.py").write_text("")
    refused = done(*given, "--revision", "a" * 40)
    assert (refused.returncode, "added.py" in refused.stderr) == (2, True)
    (folder / "added.py").unlink()

    code = (
        "import json, os, serving.legacy_captioner.model as model\n"
        "from serving.legacy_captioner.protocol import Written\n"
        "class Fake:\n"
        "    def __init__(self, folder):\n"
        "        names = 'HF_HUB_OFFLINE', 'HF_HUB_CACHE', 'HF_MODULES_CACHE', 'TRANSFORMERS_CACHE'\n"
        "        print(json.dumps([os.environ.get(name) for name in names]), flush=True)\n"
        "    def write(self, question):\n"
        "        if 'Fail' in question.prompt: raise RuntimeError('CUDA error: unspecified launch failure')\n"
        "        return Written('Served.[UNUSED_TOKEN_145]', 1, 2)\n"
        "model.XComposer2 = Fake"
    )
    process = subprocess.Popen(
        command(*given, "--revision", "a" * 40, code=code),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "TRANSFORMERS_CACHE": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        offline, hub, modules, cache = json.loads(process.stdout.readline())
        assert (offline, cache) == ("1", None)
        scratch = Path(hub).parent
        assert Path(modules).parent == scratch != tmp_path
        http = openai.DefaultHttpxClient(trust_env=False)
        with openai.OpenAI(base_url=url, api_key="none", http_client=http, max_retries=4) as client:
            assert ask(client, text_part("?")).choices[0].message.content == "Served."
            with pytest.raises(openai.APIError):
                ask(client.with_options(max_retries=0), text_part("Fail."))
        assert process.wait(60) == 1  # whoever started it starts it anew
        assert not scratch.exists()
    finally:
        process.kill()
        _, said = process.communicate()
    assert "RUNS PYTHON CODE THAT CAME WITH THE WEIGHTS" in said
    assert f"{hashlib.sha256(b'{}').hexdigest()}  model/tokenizer_config.json" in said
    assert f"revision {'a' * 40}" in said


def test_it_ends_when_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    """By the signal that its image names."""
    found = hashes_of({"model": folder})
    (tmp_path / "allowed").write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()))
    container = (ROOT / "images" / "legacy-captioner" / "Containerfile").read_text()
    named = re.findall(r"^STOPSIGNAL (\w+)$", container, re.MULTILINE)
    given = ["--model", str(folder), "--allow", str(tmp_path / "allowed"), "--revision", "a" * 40]
    code = "import serving.legacy_captioner.model as model\nmodel.XComposer2 = lambda folder: None"
    with subprocess.Popen(
        command("serve", *given, "--port", "0", code=code),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.Signals[named[0]])
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in said) == (0, False)


def test_it_needs_nothing_but_pillow_until_the_model_is_loaded() -> None:
    """Its image has neither our libraries nor our Python."""
    code = (
        "import sys, json\n"
        "import serving.legacy_captioner.__main__, serving.legacy_captioner.model\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names)))\n"
        "print(json.dumps(sorted(n for n in sys.modules if n.startswith('share4video'))))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", _with_pillow() + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    packages, ours = map(json.loads, done.stdout.splitlines())
    assert set(packages) <= {"PIL", "serving", "share4video", "__main__"}
    container = (ROOT / "images" / "legacy-captioner" / "Containerfile").read_text()
    for module in ours:
        path = module.replace(".", "/")
        assert f"{path}.py" in container or f"{path}/__init__.py" in container, module
    for name in [
        *PACKAGE.glob("*.py"),
        ROOT / "share4video/errors.py",
        ROOT / "share4video/media/compose.py",
    ]:
        ast.parse(name.read_text(), feature_version=(3, 10))


def _with_pillow() -> str:
    site = Path(Image.__file__).parents[1]
    return f"import sys; sys.path += [{str(site)!r}, '.']\n"


def test_the_pins_are_whole() -> None:
    wanted = [
        line for line in (PACKAGE / "requirements.in").read_text().splitlines() if not line.startswith("#")
    ]
    locked = (PACKAGE / "requirements.txt").read_text()
    assert all(f"{pin} \\" in locked for pin in wanted)
    blocks = re.split(r"\n(?=\S)", locked.partition("\n\n")[0] if "\n\n" in locked else locked)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    assert not re.search(r"--(extra-)?index-url|https?://", locked)

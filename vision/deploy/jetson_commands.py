"""What goes on the device beside a file: what detectNet makes of labels, old engines, and the commands to type."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Sequence
from pathlib import Path

from vision.deploy.jetpack import JETPACKS, trtexec_command

#: Bytes of a name that detectNet reads together with its line end (`fgets` of 512); the rest would be another class.
LONGEST_LABEL = 510

#: The class that detectNet never reports.
VOID = "void"


def label_traps(class_names: Sequence[str]) -> list[str]:
    """Say which class names detectNet reads otherwise than they are written.

    It takes `n01440764 tench` for a name with WordNet's number before it, and looks at no more than the letter n and
    the blank after nine characters; a class called void it leaves out.
    """
    traps = []
    for name in class_names[1:]:
        encoded = name.encode()
        if len(encoded) > LONGEST_LABEL:
            traps.append(
                f"class {name[:40]!r}... is longer than the {LONGEST_LABEL} bytes of a line that detectnet reads"
            )
        elif encoded[:1] == b"n" and encoded[9:10] == b" ":
            traps.append(
                f"class {name!r}: detectnet shows it as {encoded[10:].decode()!r}, taking the rest for a number"
            )
        elif name == VOID:
            traps.append(f"class {name!r}: detectnet never reports it")
    return traps


def remove_engines(model: Path) -> list[Path]:
    """Remove the engines that detectNet built from an older file of this name, which it might go on using.

    Returns:
        what was removed.
    """
    name = glob.escape(model.name)
    stale = sorted([*model.parent.glob(f"{name}.*.engine"), *model.parent.glob(f"{name}.sha256sum")])
    for path in stale:
        path.unlink()
    return stale


def detectnet_command(model: Path, label_file: Path, options: Sequence[str] = ()) -> str:
    """Write the command that runs the file, with more options if given; names stay relative, as on the device."""
    words = ["detectnet", f"--model={model}", f"--labels={label_file}"]
    words += ["--input-blob=input_0", "--output-cvg=scores", "--output-bbox=boxes", *options]
    return " ".join([*map(shlex.quote, words), "INPUT", "OUTPUT"])


def trtexec_lines(model: Path, jetpacks: Sequence[str], precision: str = "fp16") -> list[str]:
    """Write the command that builds an engine on each of some JetPacks, once where they share it.

    Args:
        model: the ONNX file.
        jetpacks: keys of `JETPACKS`.
        precision: see `trtexec_command`.
    """
    commands: dict[str, list[str]] = {}
    for name in jetpacks:
        files = (shlex.quote(model.name), shlex.quote(f"{model.stem}.engine"))
        commands.setdefault(trtexec_command(JETPACKS[name], *files, precision), []).append(name)
    return [f"{command}   # JetPack {', '.join(names)}" for command, names in commands.items()]


def tensorrt_11_line(model: Path) -> str:
    """Write the command that builds an engine by TensorRT 11, which takes each layer's precision from the file."""
    engine = shlex.quote(f"{model.stem}.engine")
    return f"{trtexec_command(JETPACKS['7'], shlex.quote(model.name), engine, None)}   # TensorRT 11"

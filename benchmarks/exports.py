#!/usr/bin/env python3
"""Every net at several opsets and sizes: exported, verified, and how far onnxruntime is from PyTorch.

python3 benchmarks/exports.py --opsets 11 13 17 --sizes 300 512 640x384 >exports.md

Weights are random, drawn so that answers depend on the image: with PyTorch's own any comparison would pass.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vision import cli  # noqa: E402
from vision.boxes.priors import Size, as_width_height  # noqa: E402
from vision.deploy.export import ExportOptions, ExportRejected, write  # noqa: E402
from vision.deploy.jetpack import OPERATORS, missing_operators  # noqa: E402
from vision.deploy.verification import Parity, image_like, operators_of, verify  # noqa: E402
from vision.ssd.choices import NET_NAMES  # noqa: E402
from vision.ssd.data_preprocessing import Preprocess  # noqa: E402
from vision.ssd.models import spec_of  # noqa: E402
from vision.ssd.ssd import SSD  # noqa: E402

NUM_CLASSES = 4

#: Spread that the heads' answers are brought to, like a trained net's.
LOGIT_STD, LOCATION_STD = 3.0, 1.0


def conditioned_net(name: str, size: Size, pixels: torch.Tensor | None = None) -> SSD:
    """Make a net whose maps and answers vary from image to image and from cell to cell.

    Args:
        name: of the net.
        size: of its input.
        pixels: images (N, 3, H, W) uint8 of that size that its statistics are of; soft shapes if left out.
    """
    torch.manual_seed(0)
    spec = spec_of(name)
    net = spec.build(NUM_CLASSES, config=spec.config_at(size))
    net.class_names = ("BACKGROUND", "a", "b", "c")
    net.init()
    pixels = image_like(2, net.config.width_height) if pixels is None else pixels
    images = Preprocess(net.config.image_mean, net.config.image_std)(pixels)
    with torch.no_grad():
        norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # statistics of these images, instead of an average with the first ones
        net.train()(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.eval()
        maps = net.feature_maps(images)
        for heads, spread in ((net.classification_headers, LOGIT_STD), (net.regression_headers, LOCATION_STD)):
            for head, features in zip(heads, maps, strict=True):
                last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
                answers = head(features)
                varied = (answers - answers.mean(dim=(0, 2, 3), keepdim=True)).std()
                last.weight *= spread / varied.clamp_min(1e-3)  # some upper maps hardly vary
                last.bias -= head(features).mean(dim=(0, 2, 3))
    return net


def try_export(net: SSD, opset: int, path: Path) -> tuple[Parity, list[str]]:
    """Export a net and verify the file.

    Returns:
        the comparison, and the JetPacks that parse opset and operators by what NVIDIA documents.
    """
    options = ExportOptions(opset=opset)
    write(net, path, options)
    parity = verify(path, net, options)
    return parity, [name for name, missing in missing_operators(opset, operators_of(path)).items() if not missing]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = cli.Parser(description="Export every net at several opsets and sizes, and verify the files.")
    parser.add_argument("--nets", nargs="+", type=cli.net_name, default=list(NET_NAMES), help="nets to export")
    parser.add_argument("--opsets", nargs="+", type=int, default=[11, 13, 17], help="of ONNX")
    parser.add_argument("--sizes", nargs="+", type=cli.resolution, default=[300, 512, (640, 384)], help="N or WxH")
    args = parser.parse_args(argv)
    failed = 0
    print("| net | input | opset | difference | allowed | sensitivity | JetPacks |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.nets:
            for size in args.sizes:
                net = conditioned_net(name, size)
                for opset in args.opsets:
                    row = f"| `{name}` | {'x'.join(map(str, as_width_height(size)))} | {opset}"
                    try:
                        parity, parsed = try_export(net, opset, Path(folder) / "net.onnx")
                    except ExportRejected as err:
                        failed += 1
                        print(f"{row} | rejected: {err} | | | |", flush=True)
                        continue
                    figures = f"{parity.difference:.1e} | {parity.tolerance:.1e} | {parity.sensitivity:.2f}"
                    print(f"{row} | {figures} | {', '.join(parsed) or 'none'} |", flush=True)
    print(f"\n{failed} rejected; operators known: {len(OPERATORS)}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])

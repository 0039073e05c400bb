"""Other people's JavaScript in the console: bundled from exact versions of npm, with licences and SHA-256 beside it.

`python -m tools.vendor` writes `src/kvasir/console/vendor/`, `--check` tells what differs. Needs the packages of
`tools/console/package-lock.json`, whose own hashes npm checks: `make .venv/console/ready`. What users install is the
result; nothing is built or fetched there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / ".venv" / "console" / "node_modules"
BUNDLES = ROOT / "tools" / "console" / "bundles"
VENDOR = ROOT / "src" / "kvasir" / "console" / "vendor"
SUMS = "SHA256SUMS"

#: Older browsers than these lack `Promise.withResolvers` or `Array.fromAsync` and the like.
TARGET = "chrome120,firefox121,safari17.2"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on what differs")
    asked = parser.parse_args()
    made = bundle()
    differing = differences(made, VENDOR)
    if asked.check:
        for name in differing:
            print(
                f"{VENDOR / name} differs from what tools/console/package-lock.json gives; run python -m tools.vendor"
            )
        return 1 if differing else 0
    for name in differing:
        target = VENDOR / name
        if name in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(made[name])
        else:
            target.unlink()
    print(f"{len(differing)} of {len(made)} files written or removed")
    return 0


def bundle() -> dict[str, bytes]:
    """Every file of the folder by its name: bundles, style sheets, licences of what went in, and the sums of all."""
    packages: set[str] = set()
    made: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted(BUNDLES.glob("*.js")):
            out, meta = Path(scratch, source.name), Path(scratch, "meta.json")
            # The sources stand outside of the packages' folder, so where packages are is said.
            _esbuild(str(source), f"--outfile={out}", f"--metafile={meta}")
            made[source.name] = out.read_bytes()
            packages |= {_package(path) for path in json.loads(meta.read_text())["inputs"] if "node_modules/" in path}
    made["uplot.css"] = (PACKAGES / "uplot" / "dist" / "uPlot.min.css").read_bytes()
    for package in packages:
        made[f"licenses/{package.replace('/', '-').lstrip('@')}.txt"] = _licence(package)
    lines = [f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in sorted(made.items())]
    made[SUMS] = "".join(lines).encode()
    return made


def differences(made: dict[str, bytes], folder: Path) -> list[str]:
    """Names of files that a folder lacks, has otherwise, or has too many."""
    present = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return sorted(name for name in made.keys() | present.keys() if made.get(name) != present.get(name))


def _esbuild(*arguments: str) -> None:
    if not PACKAGES.is_dir():
        sys.exit("the packages are missing; run make .venv/console/ready")
    (program,) = PACKAGES.glob("@esbuild/*/bin/esbuild")
    options = ["--bundle", "--format=esm", "--minify", f"--target={TARGET}", "--legal-comments=none", "--charset=utf8"]
    subprocess.run(
        [program, *arguments, *options, "--log-level=warning"],
        check=True,
        cwd=ROOT,
        env={"NODE_PATH": str(PACKAGES)},
    )


def _package(path: str) -> str:
    """The name of the package that a file belongs to."""
    first, second, *_ = path.rpartition("node_modules/")[2].split("/")
    return f"{first}/{second}" if first.startswith("@") else first


def _licence(package: str) -> bytes:
    folder = PACKAGES / package
    about = json.loads((folder / "package.json").read_text())
    texts = sorted(path for path in folder.iterdir() if path.name.upper().startswith("LICEN"))
    if not texts:
        sys.exit(f"{package} has no file with its licence")
    return f"{package} {about['version']}, {about['license']}\n\n".encode() + texts[0].read_bytes()


if __name__ == "__main__":
    sys.exit(main())

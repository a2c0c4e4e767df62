"""Download the corpus: ``python -m models.recipe.fetch CORPUS``. Needs Debian's apt-get and dpkg-deb, and no root.

Each package of ``corpus.toml`` becomes ``CORPUS/<package>/``: the files that serve for something, the copyright file,
and ``package.json`` with version and checksum. A folder appears whole or not at all, so the same command again fetches
what is missing. ``CORPUS/.downloads`` keeps no package that was unpacked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from models.recipe.corpus import SMOKE, Package, read_corpus


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is missing; 0, or 3 if some packages failed, which are named."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe.fetch", description=__doc__)
    parser.add_argument("corpus", type=Path, help="directory to fill")
    parser.add_argument("--only", nargs="+", metavar="PACKAGE", help="these packages alone")
    parser.add_argument("--smoke", action="store_true", help=f"a trial: {', '.join(SMOKE)}")
    options = parser.parse_args(arguments)
    wanted = set(SMOKE if options.smoke else options.only or ())
    packages = [package for package in read_corpus() if not wanted or package.name in wanted]
    unknown = wanted - {package.name for package in packages}
    if unknown:
        parser.error(f"not in corpus.toml: {', '.join(sorted(unknown))}")
    failed = []
    for package in packages:
        if (options.corpus / package.name).is_dir():
            continue
        try:
            count = install(package, download(package.name, options.corpus / ".downloads"), options.corpus)
        except (OSError, subprocess.CalledProcessError, tarfile.TarError, zipfile.BadZipFile) as error:
            failed.append(package.name)
            print(f"{package.name}: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        else:
            print(f"{package.name}: {count} files", flush=True)
    if failed:
        print(f"{len(failed)} of {len(packages)} packages failed: {', '.join(failed)}", file=sys.stderr)
    return 3 if failed else 0


def download(name: str, directory: Path) -> Path:
    """The package's file, from an earlier run or from the archive that apt is set up for."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (there := sorted(directory.glob(f"{name}_*.deb"))):
        subprocess.run(["apt-get", "-qq", "download", name], cwd=directory, check=True, capture_output=True, text=True)
        there = sorted(directory.glob(f"{name}_*.deb"))
    if not there:
        raise FileNotFoundError(f"apt-get left no file {name}_*.deb in {directory}")
    return there[-1]


def install(package: Package, file: Path, corpus: Path) -> int:
    """Unpack what a package gives into its folder of the corpus, and remove the downloaded file.

    Returns:
        How many files it gives.
    """
    partial = corpus / f".{package.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = 0
    # dpkg-deb -x would unpack gigabytes of textures too
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            path = member.name.removeprefix("./")
            if not member.isfile() or (content := tar.extractfile(member)) is None:
                continue
            if path in package.archives:
                count += _open_archive(package, path, content, partial)
            elif package.kind(path) or path == f"usr/share/doc/{package.name}/copyright":
                _write(content, partial, path)
                count += package.kind(path) is not None
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    if not count:
        raise FileNotFoundError("none of the files that corpus.toml names is in it")
    about = {"name": package.name, "file": file.name, "sha256": _sha256(file), "files": count}
    (partial / "package.json").write_text(json.dumps(about, indent=1) + "\n")
    partial.rename(corpus / package.name)
    file.unlink()
    return count


def _open_archive(package: Package, path: str, content: IO[bytes], target: Path) -> int:
    """Unpack what a zip archive gives, under the archive's own path."""
    spooled = target / ".archive"
    with spooled.open("wb") as file:
        shutil.copyfileobj(content, file)
    count = 0
    with zipfile.ZipFile(spooled) as archive:
        for info in archive.infolist():
            inner = f"{path}/{info.filename}"
            if not info.is_dir() and package.kind(inner):
                with archive.open(info) as member:
                    _write(member, target, inner)
                count += 1
    spooled.unlink()
    return count


def _write(content: IO[bytes], target: Path, path: str) -> None:
    file = target / path
    if not file.resolve().is_relative_to(target.resolve()):
        raise OSError(f"{path!r} leads out of the package")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        shutil.copyfileobj(content, out)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""Graft the shared libraries into a wheel with auditwheel, and add their licence texts and the places of their sources.

Runs where the wheel was built (any Debian or RPM system with auditwheel and patchelf): python repair.py WHEEL DIRECTORY
"""

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LICENCES = {
    "libmnl": "LGPL-2.1-or-later",
    "libnfnetlink": "GPL-2.0-or-later",
    "libnetfilter_conntrack": "GPL-2.0-or-later",
}
HEAD = """\
This wheel holds copies of the shared libraries named below, in {libs}/, as their distribution built them; auditwheel
changed the file names and the names by which they find each other, nothing else. Each is free software under the
licence given. Their complete sources:
"""
TAIL = """
The source of nfct_fast itself is its sdist of the same version, https://github.com/nfct-fast/nfct-fast holds its
history and the recipe (tests/wheels) by which this wheel was made. To run with a library of your own, put it in place
of the copy.
"""


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def debian(package):
    """(source package and version, where it is, its copyright file) of an installed Debian package."""
    source, version, arch = (
        output("dpkg-query", "-W", "-f", "${source:Package} ${source:Version} ${Architecture}\n", package)
        .split("\n")[0]
        .split()
    )
    return (
        f"{source} {version}",
        f"https://snapshot.debian.org/package/{source}/{version}/",
        Path(f"/usr/share/doc/{package}/copyright"),
    )


def rpm(package):
    """The same of an installed RPM."""
    source = output("rpm", "-q", "--qf", "%{SOURCERPM}\n", package).split("\n")[0]
    licences = [Path(line) for line in output("rpm", "-q", "--licensefiles", package).split("\n") if line]
    return source, f"{source} among the source RPMs at https://vault.almalinux.org/", licences[0] if licences else None


def grafted(folder, dist_info):
    """For each library the repair put in: (file, library, package, source, where, copyright file)."""
    sbom = json.loads((dist_info / "sboms/auditwheel.cdx.json").read_text())
    # pkg:deb/debian/libmnl0@1.0.4-3: the package manager's own record of the file that was copied
    packages = [part["purl"] for part in sbom["components"] if part["purl"].startswith(("pkg:deb", "pkg:rpm"))]
    for file in sorted(folder.iterdir()):
        library = file.name.split(".so")[0].rpartition("-")[0]
        key = library.replace("_", "-")
        owner = [purl for purl in packages if purl.rpartition("/")[2].replace("_", "-").startswith(key)]
        if library not in LICENCES or len(owner) != 1:
            raise SystemExit(f"repair: {file.name} was grafted, and its package or licence is not known: {owner}")
        name, _, version = owner[0].rpartition("/")[2].partition("@")
        source, where, text = (debian if owner[0].startswith("pkg:deb") else rpm)(name)
        yield file.name, library, f"{name} {version.partition('?')[0]}", source, where, text


def add_notices(tree):
    """Write dist-info/licenses/grafted/* and name them in METADATA."""
    (dist_info,) = tree.glob("*.dist-info")
    (folder,) = tree.glob("*.libs")
    target = dist_info / "licenses" / "grafted"
    target.mkdir(parents=True)
    lines = [HEAD.format(libs=folder.name)]
    for file, library, package, source, where, text in grafted(folder, dist_info):
        lines.append(
            f"{file}\n    library:  {library}, {LICENCES[library]}, https://netfilter.org/projects/{library}/\n"
            f"    binary:   {package}\n    source:   {source}\n    found at: {where}\n"
        )
        if text is not None:
            shutil.copyfile(text, target / f"{library}.txt")
    (target / "SOURCES.txt").write_text("\n".join(lines) + TAIL)
    names = "".join(f"License-File: grafted/{path.name}\n" for path in sorted(target.iterdir()))
    metadata = dist_info / "METADATA"
    head, blank, body = metadata.read_text().partition("\n\n")
    metadata.write_text(f"{head}\n{names.rstrip()}{blank}{body}")


def pack(tree, wheel):
    """Zip `tree` with a fresh RECORD; files sorted and dated alike, so that equal input gives an equal wheel."""
    record = next(tree.glob("*.dist-info")) / "RECORD"
    record.unlink()
    rows = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            data, name = path.read_bytes(), path.relative_to(tree).as_posix()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", len(data)))
            write(out, name, data, path.stat().st_mode)
        rows.append((record.relative_to(tree).as_posix(), "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write(out, rows[-1][0], text.getvalue().encode(), 0o100644)


def write(out, name, data, mode):
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.external_attr = (0o100000 | mode & 0o755) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(info, data, compresslevel=9)  # that of the archive does not hold for a ZipInfo


def repair(wheel, destination, options=()):
    """Path of the repaired wheel in `destination`; `options` go to auditwheel."""
    env = {name: value for name, value in os.environ.items() if name != "AUDITWHEEL_PLAT"}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        # A stock image names its own glibc as the platform; the oldest that the symbols allow is wanted.
        subprocess.run(
            ["auditwheel", "repair", "--plat", "auto", *options, "-w", scratch / "out", wheel], check=True, env=env
        )
        (made,) = (scratch / "out").glob("*.whl")
        with zipfile.ZipFile(made) as archive:
            for info in archive.infolist():
                path = Path(archive.extract(info, scratch / "tree"))
                if not info.is_dir():
                    path.chmod(info.external_attr >> 16 & 0o755 or 0o644)
        add_notices(scratch / "tree")
        destination = Path(destination)
        destination.mkdir(parents=True, exist_ok=True)
        pack(scratch / "tree", destination / made.name)
        return destination / made.name


if __name__ == "__main__":
    print(repair(sys.argv[1], sys.argv[2]))

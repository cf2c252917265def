"""What must hold of a finished wheel, read from the file alone: python check.py WHEEL (needs pyelftools, which
auditwheel brings)."""

import email
import io
import json
import re
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

GRAFTED = {"libmnl", "libnfnetlink", "libnetfilter_conntrack"}
SYSTEM = re.compile(r"(libc|libgcc_s|libm|libpthread|libdl|librt|ld-linux-[\w-]+)\.so\.\d+")
SIZE_LIMIT = 1_500_000
GLIBC_LIMIT = (2, 17)


def faults(path, glibc=GLIBC_LIMIT):
    """What is wrong with the wheel, one line each; an empty list if nothing. `glibc` is the newest it may ask for."""
    path = Path(path)
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    found = [*tag_faults(path.name, glibc), *content_faults(files), *metadata_faults(files)]
    for name, data in files.items():
        if ".so" in name:
            found += [f"{name}: {fault}" for fault in elf_faults(name, data)]
    if path.stat().st_size > SIZE_LIMIT:
        found.append(f"{path.stat().st_size} bytes, the limit is {SIZE_LIMIT}")
    return found


def tag_faults(name, glibc):
    python, abi, platforms = name.removesuffix(".whl").split("-")[-3:]
    if (python, abi) != ("cp311", "abi3"):
        yield f"tagged {python}-{abi}, not cp311-abi3"
    versions = [tuple(map(int, version)) for version in re.findall(r"manylinux_(\d+)_(\d+)_", platforms)]
    if not versions or min(versions) > glibc:
        yield f"platform {platforms} is not manylinux or needs a newer glibc than {glibc[0]}.{glibc[1]}"


def content_faults(files):
    for name in files:
        if name.endswith((".c", ".h", ".pyx", ".pxd", ".html", ".pyc")):
            yield f"{name} does not belong in a wheel"
    libraries = {name.partition("/")[2].split(".so")[0].rpartition("-")[0] for name in files if ".libs/" in name}
    if libraries != GRAFTED:
        yield f"grafted libraries are {sorted(libraries)}"
    if "nfct_fast/py.typed" not in files:
        yield "py.typed is missing"


def metadata_faults(files):
    info = next(name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(files[f"{info}/METADATA"])
    for name in metadata.get_all("License-File", []):
        if f"{info}/licenses/{name}" not in files:
            yield f"licence file {name} is missing"
    texts = {name.rpartition("/")[2] for name in files if name.startswith(f"{info}/licenses/")}
    for name in sorted({"LICENSE", "LGPL-2.1.txt", "SOURCES.txt"} - texts):
        yield f"licence text {name} is missing"
    if metadata.get("License-Expression") != "GPL-2.0-or-later AND LGPL-2.1-or-later":
        yield f"licence expression is {metadata.get('License-Expression')}"
    if any("extra ==" not in line for line in metadata.get_all("Requires-Dist", [])):
        yield f"run-time dependencies: {metadata.get_all('Requires-Dist')}"
    sbom = json.loads(files.get(f"{info}/sboms/auditwheel.cdx.json", b'{"components": []}'))
    named = {re.sub(r"[\d.-]+$", "", part["name"]).replace("-", "_") for part in sbom["components"]}
    for library in sorted(GRAFTED - named):
        yield f"{library} is not in the SBOM"
    sources = files.get(f"{info}/licenses/grafted/SOURCES.txt", b"").decode()
    for name in files:
        if ".libs/" in name and name.partition("/")[2] not in sources:
            yield f"SOURCES.txt says nothing of {name}"


def elf_faults(name, data):
    elf = ELFFile(io.BytesIO(data))
    if elf.get_section_by_name(".symtab") or elf.get_section_by_name(".debug_info"):
        yield "not stripped"
    dynamic = next(section for section in elf.iter_sections() if isinstance(section, DynamicSection))
    for tag in dynamic.iter_tags():
        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            run = tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath
            if run != ("$ORIGIN" if ".libs/" in name else "$ORIGIN/../nfct_fast.libs"):
                yield f"looks for libraries in {run}"
        if tag.entry.d_tag == "DT_NEEDED" and not SYSTEM.fullmatch(tag.needed):
            if tag.needed.split(".so")[0].rpartition("-")[0] not in GRAFTED:
                yield f"needs {tag.needed}"


if __name__ == "__main__":
    wrong = faults(sys.argv[1])
    print(*wrong or ["nothing wrong"], sep="\n")
    sys.exit(bool(wrong))

"""Compile owners.bpf.c with clang and write ../owners_skel.h: the instructions, and where the maps' descriptors go.

Run it after a change to the .c or .h files here, to ../owners.h or to ../../processes/process_event.h:
`python src/nfct_fast/sockets/bpf/generate.py [HEADER]`. Nothing else needs clang. The output depends only on the source
and on clang's major version, and names both.
"""

import hashlib
import os
import re
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDES = HERE.parents[2]
SOURCES = (
    HERE / "owners.bpf.c",
    HERE / "helpers.h",
    HERE / "store.h",
    HERE / "process.h",
    HERE / "egress.h",
    INCLUDES / "nfct_fast/sockets/owners.h",
    INCLUDES / "nfct_fast/processes/process_event.h",
)
HEADER = INCLUDES / "nfct_fast/sockets/owners_skel.h"

# ELF section: (program type, attach type), by their names in linux/bpf.h.
PROGRAMS = {
    "cgroup/sock_create": ("BPF_PROG_TYPE_CGROUP_SOCK", "BPF_CGROUP_INET_SOCK_CREATE"),
    "cgroup/connect4": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_CONNECT"),
    "cgroup/connect6": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_CONNECT"),
    "cgroup/getpeername4": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_GETPEERNAME"),
    "cgroup/getpeername6": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_GETPEERNAME"),
    "cgroup/sendmsg4": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP4_SENDMSG"),
    "cgroup/sendmsg6": ("BPF_PROG_TYPE_CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP6_SENDMSG"),
    "cgroup/post_bind4": ("BPF_PROG_TYPE_CGROUP_SOCK", "BPF_CGROUP_INET4_POST_BIND"),
    "cgroup/post_bind6": ("BPF_PROG_TYPE_CGROUP_SOCK", "BPF_CGROUP_INET6_POST_BIND"),
    "sockops": ("BPF_PROG_TYPE_SOCK_OPS", "BPF_CGROUP_SOCK_OPS"),
    "cgroup/sock_release": ("BPF_PROG_TYPE_CGROUP_SOCK", "BPF_CGROUP_INET_SOCK_RELEASE"),
    "cgroup_skb/egress": ("BPF_PROG_TYPE_CGROUP_SKB", "BPF_CGROUP_INET_EGRESS"),
    "tp_btf/sched_process_fork": ("BPF_PROG_TYPE_TRACING", "BPF_TRACE_RAW_TP"),
    "tp_btf/sched_process_exec": ("BPF_PROG_TYPE_TRACING", "BPF_TRACE_RAW_TP"),
    "tp_btf/sched_process_exit": ("BPF_PROG_TYPE_TRACING", "BPF_TRACE_RAW_TP"),
}
MAPS = ("records", "buckets", "cookies", "ports", "watches", "shares", "events", "scratch", "config", "state")


def source_hash():
    digest = hashlib.sha256()
    for path in SOURCES:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def clang_major(clang="clang"):
    """Return the major version of clang, or None if there is none that can compile for BPF."""
    try:
        text = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True).stdout
        targets = subprocess.run([clang, "--print-targets"], capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"version (\d+)", text)
    return int(version[1]) if version and "bpfel" in targets else None


def compiled(clang="clang"):
    flags = ["-O2", "-g0", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", f"-I{INCLUDES}"]
    # On Debian, asm/types.h is not in the search path of the BPF target.
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch and os.path.isdir(f"/usr/include/{multiarch}"):
        flags.append(f"-I/usr/include/{multiarch}")
    command = [clang, "--target=bpfel", *flags, "-c", str(SOURCES[0]), "-o", "-"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def sections(elf):
    """Return {name: (index, type, bytes, info)} of the sections of an ELF64 object, and its symbols."""
    if elf[:6] != b"\x7fELF\x02\x01":
        sys.exit("generate.py: not a little-endian ELF64 object")
    (offset,) = struct.unpack_from("<Q", elf, 40)
    size, count, names_at = struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + i * size) for i in range(count)]

    def string(table, at):
        start = heads[table][4] + at
        return elf[start : elf.index(b"\0", start)].decode()

    found = {}
    for index, head in enumerate(heads):
        body = b"" if head[1] == 8 else elf[head[4] : head[4] + head[5]]  # 8: SHT_NOBITS
        found[string(names_at, head[0])] = (index, head[1], body, head[7])
    _, _, table, _ = found[".symtab"]
    strings = next(head[6] for head in heads if head[1] == 2)  # 2: SHT_SYMTAB
    symbols = [
        (string(strings, name), section, info & 15)
        for name, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", table)
    ]
    return found, symbols


def programs(elf):
    """Yield (function, section, instructions, [(instruction, map)]) in the order of PROGRAMS."""
    found, symbols = sections(elf)
    if found.get(".text", (0, 0, b"", 0))[2]:
        sys.exit("generate.py: a function was not inlined; the loader does not link subprograms")
    for section in PROGRAMS:
        index, _, code, _ = found[section]
        function = next(name for name, where, kind in symbols if where == index and kind == 2)  # 2: STT_FUNC
        relocations = []
        for at, info in struct.iter_unpack("<QQ", found.get(f".rel{section}", (0, 0, b"", 0))[2]):
            name = symbols[info >> 32][0]
            if name not in MAPS or info & 0xFFFFFFFF != 1:  # 1: R_BPF_64_64
                sys.exit(f"generate.py: {section}: unknown relocation {info & 0xFFFFFFFF} against {name!r}")
            relocations.append((at // 8, name))
        yield function, section, struct.unpack(f"<{len(code) // 8}Q", code), relocations


def header(elf, clang):
    maps = ", ".join(f"OWNERS_MAP_{name.upper()}" for name in MAPS)
    lines = [
        "/* Generated by src/nfct_fast/sockets/bpf/generate.py from owners.bpf.c and what it includes. Do not edit.",
        " * SPDX-License-Identifier: GPL-2.0-or-later",
        f" * clang: {clang}",
        f" * sources: {source_hash()} */",
        "#ifndef NFCT_FAST_OWNERS_SKEL_H",
        "#define NFCT_FAST_OWNERS_SKEL_H",
        "",
        "#include <stdint.h>",
        "#include <linux/bpf.h>",
        "",
        f"enum {{ {maps}, OWNERS_MAPS }};",
        "",
        "struct owners_relocation {",
        "    uint16_t instruction;",
        "    uint16_t map;",
        "};",
        "",
        "struct owners_program {",
        "    const char *name;",
        "    uint32_t type;",
        "    uint32_t attach;",
        "    const uint64_t *code;",
        "    uint32_t length;",
        "    const struct owners_relocation *relocations;",
        "    uint32_t relocated;",
        "};",
        "",
    ]
    table = []
    for function, section, code, relocations in programs(elf):
        lines.append(f"static const uint64_t owners_code_{function}[] = {{")
        for at in range(0, len(code), 5):
            lines.append("    " + " ".join(f"0x{word:016x}," for word in code[at : at + 5]))
        lines += ["};", "", f"static const struct owners_relocation owners_relocations_{function}[] = {{"]
        relocations = relocations or [(0xFFFF, MAPS[0])]
        for at in range(0, len(relocations), 4):
            row = relocations[at : at + 4]
            lines.append("    " + " ".join(f"{{{where}, OWNERS_MAP_{name.upper()}}}," for where, name in row))
        lines += ["};", ""]
        used = sum(where != 0xFFFF for where, _ in relocations)
        kind, attach = PROGRAMS[section]
        table.append(
            f'    {{"{section}", {kind}, {attach}, owners_code_{function}, {len(code)}, '
            f"owners_relocations_{function}, {used}}},"
        )
    lines += [
        "static const struct owners_program owners_programs[] = {",
        *table,
        "};",
        "",
        f"#define OWNERS_PROGRAMS {len(table)}",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def main():
    clang = clang_major()
    if clang is None:
        sys.exit("generate.py: no clang with a BPF target")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HEADER
    target.write_text(header(compiled(), clang))


if __name__ == "__main__":
    main()

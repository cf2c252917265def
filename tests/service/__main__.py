"""Do in a fresh Debian what README.md says, as a new user would, and run the service: `make service`, as root.

Debian comes by debootstrap into trees in the user's cache, and is booted with systemd in namespaces. There is only the
wheel. SERVICE_ROOTS: the releases, "bookworm trixie"; SERVICE_WHEEL: a wheel to try instead of building this tree's.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "wheels")]

from container import Container  # noqa: E402
from roots import Root  # noqa: E402
from support import typed  # noqa: E402
from support.paths import ROOT  # noqa: E402
from support.wheel import wheel  # noqa: E402

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "nftables",
    "procps",
    "man-db",
    "bash-completion",
    "zsh",
    "fish",
)
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
# By which of the two ways of README.md; the pipx of Debian 12 has no --global.
WAYS = [("bookworm", "venv"), ("trixie", "venv"), ("trixie", "pipx")]
EXPOSURE = 2.0
# It keeps its socket for a moment: in a pid namespace there is no BPF, and who ends at once is often gone by then.
SEND = (
    "python3 -c \"import socket, time; s = socket.socket(2, 2); s.sendto(b'x', ('127.0.0.1', {port})); time.sleep(.3)\""
)


def blocks(heading):
    """The indented blocks of a section of README.md, without comments."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"(?:^    .*\n)+", section, re.M)
    return [[re.sub(r"\s+# .*", "", line.strip()) for line in block.splitlines()] for block in found]


def say(text):
    print(f"  {text}", flush=True)


def install(inside, way):
    """As README.md says; /mnt stands for the index, and all it has is the wheel, and pip for pipx."""
    (commands,) = [block for block in blocks("Install") if "apt install" in block[0] and way in block[1]]
    for command in commands:
        if command.startswith("apt install"):
            inside.run(f"dpkg -s {command.removeprefix('apt install')}")  # it was installed with the tree
        else:
            inside.run(command)
    version = inside.run("nfct-fast --version").splitlines()[0]
    say(f"installed: {version}, {inside.run('readlink -f $(which nfct-fast)')}")


def try_documents(inside):
    inside.run("man -w nfct-fast")
    if "NFCT-FAST(1)" not in inside.run("nfct-fast --man | MANPAGER=cat man -l -"):
        raise SystemExit("no manual page")
    say(f"man nfct-fast: {inside.run('man -w nfct-fast')}, {inside.run('MANPAGER=cat man nfct-fast | wc -l')} lines")
    inside.run("setpriv --reuid=65534 --regid=65534 --clear-groups nfct-fast --print-unit")
    inside.run("ip netns add somewhere")
    for name, shell in (("bash", typed.bash), ("zsh", typed.zsh)):
        inside.run(f"nfct-fast --completion {name} >/run/completion")
        with shell("/run/completion", inside.prefix) as opened:
            typed.try_all(opened, "somewhere")
    inside.run("nfct-fast --completion fish >/run/completion")
    for line, word in (*typed.OF_FISH.items(), ("--netns ", "somewhere")):
        done = subprocess.run([*inside.prefix, *typed.fish("/run/completion", line)], capture_output=True, text=True)
        if word not in [offer.partition("\t")[0] for offer in done.stdout.splitlines()]:
            raise SystemExit(f"fish does not complete {line!r} to {word}: {done.stdout}{done.stderr}")
    # As README.md has it: a shell finds it by the name of the command.
    (commands,) = [block for block in blocks("Install") if "--completion bash" in block[-1]]
    inside.run("; ".join(commands))
    loader = "/usr/share/bash-completion/bash_completion"
    inside.run(f"bash -ic '. {loader}; _completion_loader nfct-fast || _comp_load nfct-fast; complete -p nfct-fast'")
    say("completion in bash, zsh and fish")


def try_logger(inside):
    inside.run("nft 'table inet user { chain seen { type filter hook output priority 0; ct state new counter; }; }'")
    inside.run("(timeout 20 nfct-fast -p udp dport 5001 >/run/lines 2>/run/complaints &)")
    inside.until(f"{SEND.format(port=5001)}; grep -q 'python3 -c' /run/lines", 20)
    line = inside.run("grep -m1 'python3 -c' /run/lines")
    say(f"logs: {line}")


def show(inside, what):
    return inside.run(f"systemctl show -P {what} nfct-fast")


def await_active(inside):
    inside.until("systemctl is-active nfct-fast", 60)
    return show(inside, "MainPID")


def await_flow(inside, port):
    """Make flows to a port until the service has stored one; its line."""
    find = f"nfct-fast find dport {port}"
    inside.until(f"{SEND.format(port=port)}; sleep 1; {find}", 30)
    return inside.run(f"{find} | head -1")


def try_service(inside):
    (commands, *_) = blocks("Run it as a service")
    for command in commands:
        said = inside.run(command)
        if said and "Created symlink" not in said:
            say(said)
    await_active(inside)
    say(f"service: {show(inside, 'StatusText')}; {await_flow(inside, 5002)}")
    said = inside.run("systemd-analyze verify nfct-fast.service")
    if said:
        raise SystemExit(f"systemd-analyze verify: {said}")
    exposure = re.search(r"exposure level .*: ([\d.]+)", inside.run("systemd-analyze security --no-pager nfct-fast"))[1]
    if float(exposure) > EXPOSURE:
        raise SystemExit(f"the exposure is {exposure}")
    version = inside.run("systemctl --version").splitlines()[0]
    say(f"{version}: exposure {exposure}, nothing to verify")


def try_rights(inside):
    """Every process is the user's, and has few capabilities."""
    pids = inside.run("cat /sys/fs/cgroup/system.slice/nfct-fast.service/cgroup.procs").split()
    for pid in pids:
        status = inside.run(f"cat /proc/{pid}/status")
        values = dict(re.findall(r"^(\w+):\t(.*)$", status, re.M))
        uid = inside.run("id -u nfct-fast")
        if set(values["Uid"].split()) != {uid} or values["Seccomp"] != "2" or int(values["CapAmb"], 16):
            raise SystemExit(f"{values['Name']} has more rights than it should:\n{status}")
        say(f"{values['Name']}: uid {uid}, CapEff {values['CapEff'].lstrip('0')}, {values['Seccomp_filters']} filters")


def override(inside, *lines):
    inside.run("mkdir -p /run/systemd/system/nfct-fast.service.d")
    text = "\\n".join(["[Service]", *lines])
    inside.run(f"printf '{text}\\n' >/run/systemd/system/nfct-fast.service.d/test.conf; systemctl daemon-reload")


def try_restarts(inside):
    before = await_active(inside)
    inside.run("systemctl restart nfct-fast")
    after = await_active(inside)
    if before == after or show(inside, "NRestarts") != "0":
        raise SystemExit("it was not restarted")
    await_flow(inside, 5003)
    override(inside, "WatchdogSec=3")
    inside.run("systemctl restart nfct-fast")
    main = await_active(inside)
    inside.run("sleep 7")
    if main != await_active(inside):
        raise SystemExit("the watchdog ended a program that works")
    inside.run(f"kill -STOP {main}")
    inside.until("test $(systemctl show -P NRestarts nfct-fast) = 1 && systemctl is-active nfct-fast", 60)
    say(f"watchdog: {inside.run('journalctl -q -b -o cat UNIT=nfct-fast.service | grep -i watchdog | tail -1')}")
    await_flow(inside, 5004)
    inside.run(f"kill -KILL {await_active(inside)}")
    inside.until("test $(systemctl show -P NRestarts nfct-fast) = 2 && systemctl is-active nfct-fast", 60)
    await_flow(inside, 5005)
    for port in (5002, 5003, 5004, 5005):
        inside.run(f"nfct-fast find dport {port}")
    say("restarted by systemctl, the watchdog, and after SIGKILL; what was stored is found")
    say(inside.run("ls -ld /var/lib/nfct-fast /var/lib/nfct-fast/*").replace("\n", "\n  "))


def try_namespaces(inside):
    """With --netns all, a namespace that is made later; by the documented change of ExecStart."""
    program = inside.run("grep ^ExecStart= /etc/systemd/system/nfct-fast.service | cut -d= -f2 | cut -d' ' -f1")
    override(inside, "ExecStart=", f"ExecStart={program} --netns all -p udp", "StandardOutput=journal")
    inside.run("systemctl restart nfct-fast")
    await_active(inside)
    inside.run("ip netns add later; ip -n later link set lo up")
    rule = "nft 'table inet user { chain seen { type filter hook output priority 0; ct state new counter; }; }'"
    inside.run(f"ip netns exec later {rule}")
    sent = SEND.format(port=5006).replace("python3", "ip netns exec later python3", 1)
    lines = "journalctl -q -u nfct-fast -o cat | grep '> 127.0.0.1/5006 :: [0-9]'"
    inside.until(f"{sent}; sleep 0.5; {lines}", 30)
    say(f"in a later namespace: {inside.run(f'{lines} | head -1')}")
    complaints = inside.run(
        f"journalctl -q -u nfct-fast -o cat _PID={show(inside, 'MainPID')} | grep '^nfct-fast: '", False
    )
    say("says at its start:\n    " + complaints.replace("\n", "\n    "))


def try_end(inside):
    inside.run("systemctl disable --now nfct-fast")
    if show(inside, "Result") != "success" or show(inside, "ActiveState") != "inactive":
        raise SystemExit(inside.run("systemctl status --no-pager nfct-fast", False))
    say(f"stopped: {show(inside, 'Result')}")


def main():
    if os.geteuid() != 0:
        raise SystemExit("needs root, for a container with systemd")
    wanted = os.environ.get("SERVICE_ROOTS", "").split() or list(PYTHON)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(os.environ.get("SERVICE_WHEEL") or wheel(), folder)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "pip"], check=True)
        for suite, way in WAYS:
            if suite in wanted:
                python = {"venv": "python3-venv", "pipx": "pipx"}[way]
                tree = Root(suite, PYTHON[suite], (*PACKAGES, python)).ensure()
                print(f"{suite}, {way}", flush=True)
                with Container(tree, folder) as inside:
                    install(inside, way)
                    try_documents(inside)
                    try_logger(inside)
                    try_service(inside)
                    try_rights(inside)
                    try_restarts(inside)
                    try_namespaces(inside)
                    try_end(inside)
    return 0


if __name__ == "__main__":
    sys.exit(main())
